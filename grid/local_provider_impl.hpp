// The local provider's class, for its own two files only: local_provider.cpp (the world, the
// wallet, nodes that were made) and local_reserve.cpp (making a node and ending it). Others see
// local_provider.hpp.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grid/ledger.hpp"
#include "grid/local_grid.hpp"
#include "grid/local_provider.hpp"
#include "grid/node_control.hpp"
#include "zdb/blocking_client.hpp"

namespace qs::grid {

inline constexpr std::chrono::milliseconds node_lock_deadline{8'000};
inline constexpr byte_count node_size_max = 1024 * tib;

inline constexpr const char* only_looking = "this view of the local grid is read-only";

inline answer say(outcome what, std::string detail) { return {what, std::move(detail), {}, {}}; }

class local_provider final : public provider {
public:
  explicit local_provider(local_options options)
      : options_{std::move(options)}, grid_{options_.directory}, ledger_{grid_.ledger()},
        tag_{local_volume_tag(options_.keys.id())} {}

  status start();

  [[nodiscard]] bool read_only() const noexcept { return options_.read_only; }
  [[nodiscard]] std::string name() const override { return "local"; }
  [[nodiscard]] result<request> prepare(const node_order& order) const override;
  answer submit(const request& r) override;
  answer resolve(const request& r) override;
  result<std::vector<model::host>> hosts() override;
  inspection inspect(const request& r) override;
  answer restart(const request& r) override;
  answer resize(const request& r, byte_count size) override;
  answer cancel(const request& r) override;
  result<std::vector<model::stray_node>> list_ours() override;
  result<model::money> price(const std::string& host, byte_count size) override;
  result<model::wallet_view> wallet() override;
  result<model::money> top_up(model::money amount) override;
  result<std::vector<ledger_entry>> ledger(std::size_t most) override;

private:
  /// What holds while the grid's lock is held: all reservations, the ledger up to date.
  struct look {
    std::unique_lock<std::mutex> here; ///< the ledger object is one for all threads
    std::optional<file_lock> grid;     ///< none when read-only
    std::vector<placed_node> all;
    std::vector<charged_node> paid; ///< by our wallet
    wall_time now{};
  };
  result<look> take_look(bool charge = true);

  [[nodiscard]] result<order_document> ours(const request& r) const;
  [[nodiscard]] std::optional<std::string> objection(const order_document& order, const look& world,
                                                     model::money& price_per_gib) const;
  status place(const request& r, const order_document& order, model::money price_per_gib,
               wall_time now);
  answer finish(const order_document& order, bool roll_back);
  status provision(const model::endpoint& where, const reservation& contract);
  result<std::unique_ptr<zdb::blocking_client>> admin(const model::endpoint& where,
                                                      const std::string& name) const;
  [[nodiscard]] answer made(const reservation& contract, std::string detail,
                            model::endpoint where) const;
  result<bool> remove(const std::string& name);
  result<model::endpoint> start_made(const node_paths& node, const reservation& contract);
  void step(std::string_view name) const {
    if (options_.after_step) options_.after_step(name);
  }

  local_options options_;
  grid_paths grid_;
  grid::ledger ledger_;
  std::string tag_;
  std::mutex mutex_;
};

} // namespace qs::grid
