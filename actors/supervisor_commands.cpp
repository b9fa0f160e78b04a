#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/assemble.hpp"
#include "actors/plan_view.hpp"
#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

control_reply failure(int http, int exit, const std::string& text) {
  return {http, json{{"format_version", 1}, {"error", text}, {"exit", exit}}.dump(
                    -1, ' ', false, json::error_handler_t::replace)};
}

int exit_of(errc code) {
  switch (code) {
  case errc::refused:
  case errc::version_mismatch:
  case errc::over_budget:
    return 3;
  case errc::busy:
  case errc::timed_out:
  case errc::unreachable:
  case errc::no_quorum:
    return 5;
  default:
    return 1;
  }
}

control_reply failure(const error& e) { return failure(409, exit_of(e.code), describe(e)); }

control_reply good(json body) {
  body["format_version"] = 1;
  return {200, body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

void give(caf::typed_response_promise<control_reply>& answer, control_reply reply) {
  answer.deliver(std::move(reply));
}

json parse(const std::string& body) {
  auto j = json::parse(body.empty() ? "{}" : body, nullptr, false);
  return j.is_object() ? j : json::object();
}

std::string text_of(const json& j, const char* key) {
  auto found = j.find(key);
  return found != j.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

} // namespace

caf::result<control_reply> supervisor_state::command(const control_request& r) {
  if (!loaded) return failure(503, 5, "the engine is starting; try again");
  if (r.verb == "status") return control_reply{200, status_json(status_of_now())};
  if (r.verb == "nodes") return control_reply{200, nodes_json(status_of_now())};
  if (stopping) return failure(503, 5, "the engine is stopping; try again");
  if (r.verb == "plan") return plan(r.body);
  if (r.verb == "accept") return accept(r.body);
  if (r.verb == "wallet") return wallet();
  if (r.verb == "topup") return top_up(r.body);
  if (r.verb == "mount") return mount_command(true);
  if (r.verb == "umount") return mount_command(false);
  if (r.verb == "cache_drop") return drop_cache();
  if (r.verb == "suspend") return suspend();
  if (r.verb == "resume") return resume();
  if (r.verb == "cancel") return cancel();
  if (r.verb == "node_delete") return delete_node(r.body);
  if (r.verb == "node_replace" || r.verb == "node_drain") return node_command(r.verb, r.body);
  return failure(
      404, 1,
      fmt::format("this engine does not know '{}'; is it older than the command? qs restart",
                  r.verb));
}

// -- plan and accept
// -------------------------------------------------------------------------------------------------

caf::result<control_reply> supervisor_state::plan(const std::string& body) {
  auto request = parse(body);
  auto destroy = request.value("destroy", false);
  // Without it nobody knows what a file would change, nor what there is to close.
  if (!spec_problem.empty()) return failure(409, 1, spec_problem);
  auto text = text_of(request, "text");
  auto given = parse_references(request.contains("references") ? request["references"].dump() : "");
  if (!given.ok()) return failure(given.err());
  spec::loaded loaded_spec;
  if (!destroy) {
    // The client resolved and validated; the engine parses again what it will keep true.
    loaded_spec = spec::validate(text, spec::fixed_environment{*given});
    if (!loaded_spec.spec)
      return failure(400, 1, render(loaded_spec.problems, "storage.yaml", text));
    if (loaded_spec.spec->name != config.shared->options.volume)
      return failure(
          409, 3,
          fmt::format(
              "the file is about '{}', this engine about '{}'; a volume's name never changes",
              loaded_spec.spec->name, config.shared->options.volume));
  }
  auto answer = self->make_response_promise<control_reply>();
  auto steps = std::make_shared<int>(3);
  auto look = std::make_shared<grid_look>();
  auto sealed = given->empty()
                    ? std::string{}
                    : seal_references(config.shared->keys, *given, *config.shared->random);
  auto next = [=, this] {
    if (--*steps == 0) finish_plan(text, destroy, loaded_spec, sealed, *look, answer);
  };
  // The grids that this file names, which may not be those that are accepted.
  run_blocking<grid_look>(
      self, config.blocking, lane::provider, {}, 45s,
      [w = config.shared, spec = loaded_spec.spec, former = machines, known = recorded] {
        return look_for_plan(w->providers, w->keys, spec ? &*spec : nullptr, former, known);
      },
      [look, next](grid_look l) {
        *look = std::move(l);
        next();
      },
      [look, next](const error& e) {
        look->hosts_known = look->strays_known = false;
        look->trouble = describe(e);
        next();
      });
  self->request(monitor_, 5s, get_report{})
      .then(
          [this, next](const monitor_round& r) {
            round = r;
            next();
          },
          [next](caf::error&) { next(); });
  self->request(mount_, 10s, get_report{})
      .then(
          [this, next](volume_report& r) {
            volume = std::move(r);
            next();
          },
          [next](caf::error&) { next(); });
  return answer;
}

void supervisor_state::finish_plan(const std::string& text, bool destroy, const spec::loaded& from,
                                   std::string sealed, const grid_look& look,
                                   caf::typed_response_promise<control_reply> answer) {
  auto world = observe();
  world.hosts = look.hosts;
  world.hosts_known = look.hosts_known;
  world.strays = look.strays;
  world.strays_known = look.strays_known;
  world.wallet = look.money;
  auto remarks = destroy ? plan_remarks{} : existing_volume(recorded, world, config.shared->options.state_directory,
                                                            look.trouble);
  if (remarks.exit != 0) return give(answer, {200, plan_document({}, remarks)});
  auto made =
      destroy
          ? controller::diff_destroy(recorded, world)
          : controller::diff(*from.spec, text, desired ? &*desired : nullptr,
                             with_first_lineage(recorded, to_hex(config.shared->keys.id())), world);
  // The edit that waited for a person was taken back, or nothing of it is left to do.
  auto as_accepted = !destroy && recorded.accepted &&
                     spec::canonical_hash(*from.spec) == recorded.accepted->hash;
  if (as_accepted || (!destroy && made.made && made.made->empty())) edit_waits.clear();
  if (!made.made) return give(answer, {200, plan_document(made, {})});
  auto& p = *made.made;
  auto hash = p.hash;
  if (plans.size() >= 8) {
    plan_references.erase(plans.begin()->first);
    plans.erase(plans.begin());
  }
  plans[hash] = p;
  plan_remarks fine;
  // The text may be as accepted and a value behind a ${…} not, or its work cancelled: the accept takes the one and
  // lifts the other. The values are compared, never shown.
  if (!destroy && recorded.accepted) {
    auto values = open_references(config.shared->keys, sealed) != references;
    if (values) fine.warnings.emplace_back("what a ${…} of the file stands for has changed; apply takes it");
    fine.refresh = values || recorded.cancelled;
  }
  plan_references[hash] = std::move(sealed);
  // The mount point is looked at before anything is promised; a machine without FUSE does
  // everything else.
  auto port = config.shared->options.mount;
  auto wanted = !destroy && from.spec->mount.has_value();
  auto answer_with = [answer, made](const plan_remarks& r) mutable {
    give(answer, {200, plan_document(made, r)});
  };
  if (!wanted || (port && port->mounted())) return answer_with(fine);
  if (!port) {
    fine.warnings.emplace_back("this machine has no FUSE: everything but the mount will work");
    return answer_with(fine);
  }
  mount_settings s;
  s.path = from.spec->mount->path.value;
  s.volume_name = config.shared->options.volume;
  run_blocking<status>(
      self, config.blocking, lane::volume, {}, 60s, [port, s] { return port->check(s); },
      [answer_with, fine](status how) mutable {
        if (how.ok()) return answer_with(fine);
        auto message = describe(how.err());
        // A machine without FUSE does everything else; a mount point that cannot be used is the
        // file's fault.
        if (how.err().code == errc::unsupported) {
          fine.warnings.push_back(message);
          return answer_with(fine);
        }
        fine.exit = 1;
        fine.errors.push_back(message);
        answer_with(fine);
      },
      [answer](const error& e) mutable { give(answer, failure(e)); });
}

caf::result<control_reply> supervisor_state::accept(const std::string& body) {
  auto request = parse(body);
  auto hash = text_of(request, "plan_hash");
  auto found = plans.find(hash);
  if (found == plans.end() || found->second.serial != recorded.serial || state_busy)
    return failure(
        409, 3,
        "the plan is stale: the state has moved on since it was made; look again with qs diff");
  auto p = found->second;
  state::store::acceptance a;
  a.expected_serial = p.serial;
  a.spec.text = p.spec_text;
  a.spec.hash = p.spec_hash;
  a.spec.accepted_at = config.shared->time->wall();
  a.nodes = p.rows;
  a.next_node_number = std::max(p.next_node_number, recorded.next_node_number);
  a.sealed_references = plan_references[hash];
  a.destroying = std::any_of(p.actions.begin(), p.actions.end(), [](const controller::action& x) {
    return x.kind == controller::action_kind::destroy_volume;
  });
  std::optional<spec::storage_spec> parsed_spec;
  if (a.destroying && recorded.accepted) {
    a.spec = *recorded.accepted;
    a.protect = recorded.protect;
    a.sealed_references = seal_references(config.shared->keys, references, *config.shared->random);
  } else if (auto parsed = spec::load(p.spec_text, spec::fixed_environment{open_references(
                                                       config.shared->keys, a.sealed_references)});
             parsed.spec) {
    a.protect = parsed.spec->storage.protect;
    parsed_spec = std::move(parsed.spec);
  }
  auto followed = request.value("only_additions", false);
  if (followed && recorded.accepted && recorded.accepted->hash == p.spec_hash) {
    // No edit: whoever cancelled what was accepted is not overruled by the file as it was all along.
    edit_waits.clear();
    return good({{"unchanged", true}, {"serial", recorded.serial}});
  }
  if (followed) {
    auto parsed = spec::load(p.spec_text, spec::fixed_environment{open_references(
                                              config.shared->keys, a.sealed_references)});
    if (!parsed.spec ||
        !controller::only_adds(p, desired ? &*desired : nullptr, *parsed.spec, recorded)) {
      std::string waits = "the edit of storage.yaml does more than add: 'qs apply' shows and does it";
      if (edit_waits != waits) note("warning", "ApprovalNeeded", "spec", waits);
      edit_waits = waits;
      return failure(409, 3, waits);
    }
  }
  plans.clear();
  plan_references.clear();
  edit_waits.clear();
  auto answer = self->make_response_promise<control_reply>();
  state_busy = true;
  struct accepted {
    result<std::uint64_t> serial;
    result<model::recorded> fresh;
  };
  // The machines first: there must be no node whose provider does not know where it is.
  auto known = with_former(parsed_spec ? machines_of(*parsed_spec) : machines, machines);
  auto sealed_machines = seal_machines(config.shared->keys, without_unused(known, recorded),
                                       *config.shared->random);
  on_state(
      [store = config.shared->store.get(), a, sealed_machines]() -> accepted {
        if (auto noted = store->put_note(machines_note, sealed_machines); !noted.ok())
          return {noted.err(), store->load()};
        auto serial = store->accept(a);
        auto fresh = store->load();
        return {std::move(serial), std::move(fresh)};
      },
      [this, answer, a, sealed_machines](accepted done_so) mutable {
        state_busy = false;
        machines = open_machines(config.shared->keys, sealed_machines);
        if (!done_so.serial.ok())
          return give(answer, failure(409, 3, describe(done_so.serial.err())));
        if (!done_so.fresh.ok()) return state_failed(done_so.fresh.err());
        references = open_references(config.shared->keys, a.sealed_references);
        apply_recorded(std::move(*done_so.fresh));
        note("info", a.destroying ? "DestroyAccepted" : "SpecAccepted", "spec",
             fmt::format("generation {}, serial {}",
                         recorded.accepted ? recorded.accepted->generation : 0, *done_so.serial));
        give(answer, good({{"generation", recorded.accepted ? recorded.accepted->generation : 0},
                           {"serial", *done_so.serial}}));
        poke();
      });
  return answer;
}

// -- single commands
// -------------------------------------------------------------------------------------------------

caf::result<control_reply> supervisor_state::mount_command(bool wanted) {
  if (wanted && (!desired || !desired->mount))
    return failure(409, 1, "storage.yaml declares no mount; add `mount: {path: …}` and apply");
  if (wanted && mount_busy) return failure(503, 5, "a mount or unmount is under way; try again");
  auto answer = self->make_response_promise<control_reply>();
  on_state([store = config.shared->store.get(),
            wanted] { return store->set_flag("mount_wanted", wanted); },
           [this, wanted, answer](status how) mutable {
             if (!how.ok()) return give(answer, failure(how.err()));
             recorded.mount_wanted = wanted;
             auto finish = [this, answer](caf::error& e) mutable {
               give(answer, failure(from_caf(e)));
               poke();
             };
             auto fine = [this, answer](done) mutable {
               mount_problem.clear();
               refresh_report();
               give(answer, good(json::object()));
             };
             if (wanted)
               self->request(mount_, 120s, do_mount{mount_wish()}).then(fine, finish);
             else
               self->request(mount_, 120s, do_unmount{}).then(fine, finish);
           });
  return answer;
}

caf::result<control_reply> supervisor_state::drop_cache() {
  auto answer = self->make_response_promise<control_reply>();
  auto failed = [answer](caf::error& e) mutable {
    auto reason = from_caf(e);
    if (reason.code == errc::timed_out)
      return give(
          answer,
          failure(409, 5, "bytes are still at risk: not every shard is confirmed yet; try again"));
    give(answer, failure(reason));
  };
  self->request(mount_, 90s, do_drain{60s})
      .then(
          [this, answer, failed](done) mutable {
            self->request(mount_, 120s, drop_caches{})
                .then([answer](done) mutable { give(answer, good(json::object())); }, failed);
          },
          failed);
  return answer;
}

caf::result<control_reply> supervisor_state::suspend() {
  auto answer = self->make_response_promise<control_reply>();
  on_state([store = config.shared->store.get()] { return store->set_flag("suspended", true); },
           [this, answer](status how) mutable {
             if (!how.ok()) return give(answer, failure(how.err()));
             recorded.suspended = true;
             note("info", "Suspended", "volume", "nothing is changed until qs resume");
             give(answer, good(json::object()));
             poke();
           });
  return answer;
}

caf::result<control_reply> supervisor_state::resume() {
  auto answer = self->make_response_promise<control_reply>();
  on_state(
      [store = config.shared->store.get()]() -> status {
        QS_TRY(store->set_flag("suspended", false));
        return store->set_flag("cancelled", false);
      },
      [this, answer](status how) mutable {
        if (!how.ok()) return give(answer, failure(how.err()));
        recorded.suspended = false;
        recorded.cancelled = false;
        note("info", "Resumed", "volume", "reconciling again");
        give(answer, good(json::object()));
        poke();
      });
  return answer;
}

/// qs apply --cancel: what is in flight comes to its end, nothing more of what was accepted begins.
caf::result<control_reply> supervisor_state::cancel() {
  using model::node_state;
  if (recorded.destroying)
    return failure(409, 3, "a destroy cannot be cancelled: its data is being deleted");
  auto unfinished = [](const model::recorded_node& r) {
    return r.state == node_state::planned || r.state == node_state::reserving ||
           r.state == node_state::deploying;
  };
  auto nothing = under_way() == 0 && (!decided || decided->to_do() == 0) &&
                 std::none_of(recorded.nodes.begin(), recorded.nodes.end(), unfinished);
  if (nothing || !desired) return good({{"cancelled", false}});
  auto answer = self->make_response_promise<control_reply>();
  on_state([store = config.shared->store.get()] { return store->set_flag("cancelled", true); },
           [this, answer](status how) mutable {
             if (!how.ok()) return give(answer, failure(how.err()));
             recorded.cancelled = true;
             note("info", "Cancelled", "spec",
                  "what is in flight ends, nothing more of what was applied is begun");
             give(answer, good({{"cancelled", true}}));
             poke();
           });
  return answer;
}

struct wallet_look {
  model::wallet_view view;
  std::vector<grid::ledger_entry> history;
  status how;
};

caf::result<control_reply> supervisor_state::wallet() {
  auto answer = self->make_response_promise<control_reply>();
  run_blocking<wallet_look>(
      self, config.blocking, lane::provider, {}, 45s,
      [w = config.shared] {
        wallet_look out;
        for (auto& [provider_name, p] : w->providers.in_use()) {
          if (!p->charges()) continue;
          auto view = p->wallet();
          if (!view.ok()) {
            out.how = std::move(view).err();
            continue;
          }
          out.view.known = true;
          out.view.balance += view->balance;
          out.view.per_month += view->per_month;
          if (auto list = p->ledger(100); list.ok())
            out.history.insert(out.history.end(), list->begin(), list->end());
        }
        return out;
      },
      [this, answer](wallet_look l) mutable {
        if (!l.view.known)
          return give(answer,
                      failure(l.how.ok() ? error{errc::not_found, "no provider keeps a wallet"}
                                         : l.how.err()));
        money = l.view;
        give(answer, control_reply{200, wallet_json(l.view, l.history)});
      },
      [answer](const error& e) mutable { give(answer, failure(e)); });
  return answer;
}

caf::result<control_reply> supervisor_state::top_up(const std::string& body) {
  auto amount = model::parse_money(text_of(parse(body), "amount"));
  if (!amount.ok() || amount->units == 0)
    return failure(400, 64, "the amount must be like 50 or 12.5 (TFT)");
  auto answer = self->make_response_promise<control_reply>();
  run_blocking<result<model::money>>(
      self, config.blocking, lane::provider, {}, 45s,
      [w = config.shared, sum = *amount]() -> result<model::money> {
        for (auto& [provider_name, p] : w->providers.in_use())
          if (p->charges()) return p->top_up(sum);
        return error{errc::not_found, "no provider keeps a wallet"};
      },
      [this, answer, sum = *amount](result<model::money> balance) mutable {
        if (!balance.ok()) return give(answer, failure(balance.err()));
        note("info", "ToppedUp", "wallet",
             fmt::format("{} more, balance {}", model::format_money(sum),
                         model::format_money(*balance)));
        money.balance = *balance;
        give(answer, good({{"balance", model::to_decimal(*balance)}}));
        poke();
      },
      [answer](const error& e) mutable { give(answer, failure(e)); });
  return answer;
}

caf::result<control_reply> supervisor_state::node_command(const std::string& verb,
                                                          const std::string& body) {
  auto id = model::parse_node_id(text_of(parse(body), "node"));
  auto* r = id ? row(*id) : nullptr;
  if (r == nullptr || r->state == model::node_state::gone)
    return failure(404, 1, "there is no such node; see qs nodes");
  if (busy_nodes.contains(*id) || state_busy)
    return failure(503, 5, "that node is being worked on; try again");
  if (r->state != model::node_state::ready && r->state != model::node_state::unreachable)
    return failure(
        409, 3, fmt::format("{} is {} already", model::to_string(*id), model::to_string(r->state)));
  auto reason = verb == "node_replace" ? "ReplaceAsked" : "DrainAsked";
  mark(*id, model::node_state::draining, reason);
  return good({{"node", model::to_string(*id)}, {"state", "draining"}});
}

} // namespace qs::actors
