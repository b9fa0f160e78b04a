#include "actors/payment.hpp"

#include <algorithm>
#include <cstdint>

#include <caf/all.hpp>

#include <fmt/format.h>

#include "actors/assemble.hpp"
#include "base/log.hpp"
#include "state/wallet.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

struct look {
  model::wallet_view view;
  status how;
};

/// Balance and burn over all providers; the burn of the phrase's other volumes comes from the
/// wallet book.
look look_at(world& w, const std::string& volume, model::money own_burn) {
  look out;
  for (auto& [provider_name, p] : w.providers.in_use()) {
    if (!p->charges()) continue;
    auto view = p->wallet();
    if (!view.ok()) {
      out.how = std::move(view).err();
      continue;
    }
    out.view.known = true;
    out.view.balance += view->balance;
    out.view.per_month += view->per_month;
  }
  if (w.options.wallets_directory.empty()) return out;
  state::wallet_book book{w.options.wallets_directory, wallet_public_id(w.options.root)};
  if (auto how = book.put_burn(volume, own_burn); !how.ok()) {
    log::warning("payment", "the wallet book: {}", describe(how.err()));
    return out;
  }
  if (auto all = book.burn(); all.ok()) out.view.per_month = std::max(out.view.per_month, *all);
  return out;
}

/// How long the balance carries the burn; a month has 30 days. Nothing burnt: for ever.
std::chrono::milliseconds runway(const model::wallet_view& v) {
  if (v.per_month.units <= 0) return std::chrono::milliseconds::max();
  auto hours =
      static_cast<double>(v.balance.units) / static_cast<double>(v.per_month.units) * 24.0 * 30.0;
  return std::chrono::hours{static_cast<std::int64_t>(std::min(hours, 1e9))};
}

} // namespace

model::money expected_cost(world& w, const model::recorded_node& row) {
  if (row.price.units != 0) return row.price;
  // Stands in for one that is paid for, and carries the limit of that one.
  const auto* provider = w.providers.find(row.provider);
  if (provider != nullptr && !provider->charges()) return {};
  return row.price_limit;
}

struct payment_state {
  explicit payment_state(payment_actor::pointer p) : self{p} {}

  payment_actor::behavior_type make_behavior() {
    caf::anon_send(payment_actor{self}, tick{});
    return {
        [this](look_at_wallet) -> caf::result<model::wallet_view> {
          auto answer = self->make_response_promise<model::wallet_view>();
          refresh([this, answer](const status& how) mutable {
            if (seen.known)
              answer.deliver(seen);
            else
              answer.deliver(to_caf(how.ok() ? error{errc::not_found, "no provider keeps a wallet"}
                                             : how.err()));
          });
          return answer;
        },
        [this](const price_check& check) { return price(check); },
        [this](const budget& b) {
          if (terms.top_up_below != b.top_up_below)
            asked_for_money = false; // another bound, another answer
          terms = b;
        },
        [this](tick) {
          caf::delayed_anon_send(payment_actor{self}, config.interval, tick{});
          refresh([this](const status&) { ask_for_money(); });
        },
    };
  }

  void refresh(std::function<void(const status&)> then) {
    run_blocking<look>(
        self, config.blocking, lane::provider, {}, 45s,
        [w = config.shared, volume = config.shared->options.volume, burn = terms.burn] {
          return look_at(*w, volume, burn);
        },
        [this, then](look l) {
          if (l.view.known) seen = l.view;
          then(l.how);
        },
        [then](const error& e) { then(status{e}); });
  }

  /// A node is paid for at least a day ahead, or it is not reserved at all: half a node helps
  /// nobody.
  caf::result<done> price(const price_check& check) {
    auto answer = self->make_response_promise<done>();
    auto cost = expected_cost(*config.shared, check.row);
    if (cost.units == 0) { // a grid that charges nothing needs no wallet
      answer.deliver(done{});
      return answer;
    }
    refresh([this, answer, cost, check](const status&) mutable {
      if (!seen.known) { // unknown is not no: the provider itself refuses what cannot be paid
        answer.deliver(done{});
        return;
      }
      if (terms.max_per_month && !check.row.replaces && terms.burn > *terms.max_per_month) {
        answer.deliver(to_caf(
            {errc::over_budget, fmt::format("the nodes would cost {} a month, max_per_month is {}",
                                            model::format_money(terms.burn),
                                            model::format_money(*terms.max_per_month))}));
        return;
      }
      auto day = model::money{cost.units / 30};
      if (seen.balance < day) {
        answer.deliver(to_caf(
            {errc::over_budget,
             fmt::format(
                 "the wallet holds {}, a day of this node costs {}; top it up: qs wallet topup",
                 model::format_money(seen.balance), model::format_money(day))}));
        return;
      }
      answer.deliver(done{});
    });
    return answer;
  }

  void ask_for_money() {
    if (!seen.known || terms.top_up_below.count() == 0) return;
    auto left = runway(seen);
    if (left >= terms.top_up_below) {
      asked_for_money = false;
      return;
    }
    if (asked_for_money || !config.note) return;
    asked_for_money = true;
    config.note({"warning", "TopUpNeeded", "wallet",
                 fmt::format("{} left, enough for {}: top it up with qs wallet topup",
                             model::format_money(seen.balance), format_duration(left))});
  }

  payment_actor::pointer self;
  payment_config config;
  budget terms;
  model::wallet_view seen;
  bool asked_for_money = false;
  static inline const char* name = "qs.payment";
};

namespace {

payment_actor::behavior_type payment(payment_actor::stateful_pointer<payment_state> self,
                                     payment_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

payment_actor make_payment(caf::actor_system& system, payment_config config) {
  return system.spawn(payment, std::move(config));
}

} // namespace qs::actors
