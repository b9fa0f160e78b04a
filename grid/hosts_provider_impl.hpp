// The hosts provider's class, for its own files only: hosts_provider.cpp (the machines and what
// they have), hosts_reserve.cpp (one namespace, made and ended). Others see hosts_provider.hpp.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <set>

#include "grid/hosts_provider.hpp"
#include "zdb/blocking_client.hpp"

namespace qs::grid {

/// What one order says, as the request document has it. `address` is where it was sent: the machine
/// may be said to be elsewhere later.
struct hosts_order {
  std::string name; ///< the namespace
  std::string tag;  ///< of the volume
  model::node_id node;
  std::uint32_t incarnation = 1;
  std::string host;
  std::string address;
  byte_count size = 0;
};
request encode_hosts_order(const hosts_order& order);
/// Errors: invalid_argument, version_mismatch.
result<hosts_order> decode_hosts_order(const request& text);

class hosts_grid_provider final : public hosts_provider {
public:
  explicit hosts_grid_provider(hosts_options options);

  void configure(std::vector<hosts_machine> machines) override;
  [[nodiscard]] std::string name() const override { return "hosts"; }
  [[nodiscard]] bool charges() const override { return false; }
  [[nodiscard]] bool may_send_plain(const std::string& host) const override;
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
  using client_ptr = std::unique_ptr<zdb::blocking_client>;
  /// When a call must have been answered, however many steps it takes.
  using call_end = std::chrono::steady_clock::time_point;
  [[nodiscard]] call_end ends() const {
    return std::chrono::steady_clock::now() + options_.call_deadline;
  }
  /// What there is under a name on one server.
  struct found {
    enum class state : std::uint8_t {
      ours,    ///< the derived password opens it
      half,    ///< no password and no entries: ours to finish
      foreign, ///< somebody else's
      absent,
      unknown, ///< it did not say
    } what = state::unknown;
    error why; ///< foreign, unknown: for people
    zdb::namespace_info info;
    hosts_machine machine; ///< where
    client_ptr client;     ///< an administrator's, as far as the server takes us for one
    bool admin = false;
  };
  struct server_load {
    byte_count promised = 0; ///< quotas, and the contents of namespaces without one
    byte_count unused = 0;   ///< of the quotas
    byte_count disk_free = 0;
  };

  [[nodiscard]] std::vector<hosts_machine> machines() const;
  [[nodiscard]] std::optional<hosts_machine> machine(const std::string& name) const;
  [[nodiscard]] std::vector<hosts_machine> candidates(const hosts_order& order) const;
  [[nodiscard]] result<hosts_order> ours(const request& r) const;
  result<client_ptr> connect(const hosts_machine& m, zdb::session_options options,
                             call_end end) const;
  result<client_ptr> connect_admin(const hosts_machine& m, call_end end) const;
  [[nodiscard]] status opens(const hosts_machine& m, const std::string& ns, call_end end) const;
  result<server_load> load_of(zdb::blocking_client& client) const;
  [[nodiscard]] static byte_count free_on(const hosts_machine& m, const server_load& load);
  [[nodiscard]] model::host look_at(const hosts_machine& m, call_end end);
  result<std::vector<model::stray_node>> ours_on(const hosts_machine& m, call_end end);
  [[nodiscard]] bool may_be_ours(const std::string& ns);
  void tell_once(const std::string& machine, const std::string& trouble);

  [[nodiscard]] found look_for(const hosts_machine& m, const std::string& ns, bool sure,
                               call_end end) const;
  [[nodiscard]] found look_everywhere(const hosts_order& order, bool sure, call_end end) const;
  answer make(const hosts_order& order, found& at, call_end end);
  answer finish(const hosts_order& order, found& at, bool undo, call_end end);
  [[nodiscard]] answer made(const hosts_order& order, const hosts_machine& m) const;
  void step(std::string_view name) const {
    if (options_.after_step) options_.after_step(name);
  }

  hosts_options options_;
  std::string tag_;
  mutable std::mutex mutex_; ///< for what follows; never held while a server is asked
  std::vector<hosts_machine> machines_;
  std::map<std::string, std::string> troubles_; ///< told last, by machine
  std::set<std::string> names_;                 ///< that nodes of this volume may have
};

} // namespace qs::grid
