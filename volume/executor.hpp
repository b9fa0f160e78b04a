// Where the volume's background work runs: sealing, parity, reaping, repair. In the engine a few threads,
// in tests a queue that is run by hand, so that every interleaving can be replayed.
#pragma once

#include <functional>

namespace qs::volume {

class executor {
public:
  virtual ~executor() = default;
  /// Runs the job later, on a thread that may use the CPU and the local disk but never waits for the network.
  virtual void post(std::function<void()> job) = 0;
};

} // namespace qs::volume
