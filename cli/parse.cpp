#include "cli/parse.hpp"

#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/diagnostic.hpp"
#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"

namespace qs::cli {
namespace {

constexpr auto exit_codes_footer =
  "Exit codes: 0 done, 1 error, 2 changes pending (diff --detailed-exitcode), 3 refused by a rule,\n"
  "4 done but degraded, 5 busy or timed out, 64 usage, 130 detached or interrupted.";

/// Builds the tree of commands; the options live as long as the builder and the commands it hands out.
class builder {
public:
  builder() : app_{std::make_shared<CLI::App>("qs keeps quantum-safe storage the way storage.yaml says it should be.", "qs")} {
    app_->require_subcommand(1);
    app_->set_help_flag("-h,--help", "Show this help");
    app_->set_version_flag("--version", std::string{"qs "} + QS_VERSION);
    app_->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    app_->footer(exit_codes_footer);
    app_->get_formatter()->column_width(34);
    setting_up();
    planning();
    engine();
    looking();
    money_and_mount();
    local_grid();
    the_rest();
  }

  CLI::App& app() { return *app_; }
  parsed& chosen() { return chosen_; }

private:
  template <class O>
  std::shared_ptr<O> options() {
    auto made = std::make_shared<O>();
    kept_.push_back(made);
    return made;
  }

  template <class O>
  void runs(CLI::App* command, const std::shared_ptr<O>& o, common_flags& common, int (*function)(const O&, terminal&)) {
    command->callback([this, o, &common, function] {
      chosen_.color = common.color;
      chosen_.command = [o, function](terminal& t) { return function(*o, t); };
    });
  }

  void common(CLI::App* command, common_flags& c, bool with_file = true) {
    if (with_file) command->add_option("FILE", c.file, "storage.yaml; default: the one here, else the only volume there is");
    command->add_option("--volume", c.volume, "The volume by name instead of by file")->type_name("NAME");
    command->add_option("--state-dir", c.state_dir, "Where its state lies (QS_STATE_DIR)")->type_name("DIR");
    command->add_flag("--json", c.json, "JSON on standard output");
    command->add_option("--color", c.color, "Colour: always, auto or never")->type_name("WHEN")->check(CLI::IsMember({"always", "auto", "never"}));
  }

  CLI::App* add(CLI::App* parent, const std::string& name, const std::string& summary) {
    auto* command = parent->add_subcommand(name, summary);
    command->fallthrough(false);
    return command;
  }
  CLI::App* add(const std::string& name, const std::string& summary) { return add(app_.get(), name, summary); }

  void setting_up() {
    auto* init = add("init", "Write a storage.yaml and make the 24 words");
    auto o = options<init_options>();
    init->add_option("DIR", o->directory, "Where to write it; default: here");
    init->add_option("--name", o->name, "Name of the volume: a-z, 0-9, '-'")->type_name("NAME");
    init->add_option("--capacity", o->capacity, "Usable capacity, e.g. 20GiB")->type_name("SIZE");
    init->add_option("--data", o->data, "Data shards (default 4)")->type_name("K")->check(CLI::Range(1, 32));
    init->add_option("--parity", o->parity, "Parity shards: so many nodes may be lost (default 2)")->type_name("M")->check(CLI::Range(0, 16));
    init->add_option("--nodes", o->nodes, "Storage nodes (default data + parity)")->type_name("N")->check(CLI::Range(1, 10000));
    auto* mount = init->add_option("--mount", o->mount, "Where to mount it (default ~/NAME)")->type_name("PATH");
    init->add_flag("--no-mount", o->no_mount, "No mount")->excludes(mount);
    init->add_option("--cache", o->cache, "Size of the read cache")->type_name("SIZE");
    init->add_option("--staging", o->staging, "Size of the local log")->type_name("SIZE");
    init->add_option("--listen", o->listen, "Address of the status page, or 'off' (default a free port)")->type_name("HOST:PORT");
    init->add_flag("--no-protect", o->no_protect, "Allow plans that destroy data");
    init->add_option("--interval", o->interval, "monitor.interval")->type_name("TIME");
    init->add_option("--failed-after", o->failed_after, "monitor.failed_after")->type_name("TIME");
    init->add_option("--replace-after", o->replace_after, "monitor.replace_after")->type_name("TIME");
    init->add_flag("-y,--yes", o->yes, "Ask nothing, take the defaults");
    init->add_flag("--show-words", o->show_words, "Show the 24 words though standard output is no terminal");
    init->add_flag("--no-key", o->no_key, "Do not make the 24 words");
    init->add_flag("--json", o->common.json, "JSON on standard output");
    init->add_option("--color", o->common.color, "Colour: always, auto or never")->type_name("WHEN")->check(CLI::IsMember({"always", "auto", "never"}));
    runs(init, o, o->common, command_init);

    auto* key = add("key", "The 24 words alone");
    key->require_subcommand(1);
    auto word_command = [&](const char* name, const char* summary, int (*function)(const key_options&, terminal&)) {
      auto* c = add(key, name, summary);
      auto k = options<key_options>();
      c->add_option("NAME", k->name, "The volume; default: the one of ./storage.yaml");
      c->add_option("--color", k->common.color, "Colour: always, auto or never")->type_name("WHEN")->check(CLI::IsMember({"always", "auto", "never"}));
      runs(c, k, k->common, function);
      return std::pair{c, k};
    };
    auto [made, made_o] = word_command("new", "Make 24 words; never overwrites", command_key_new);
    made->add_flag("--show-words", made_o->show_words, "Show them though standard output is no terminal");
    auto [brought, brought_o] = word_command("import", "Bring your 24 words; never overwrites", command_key_import);
    brought->add_option("--from", brought_o->from, "A file; default: asked for, or standard input")->type_name("FILE");
    auto [shown, shown_o] = word_command("show", "Show the 24 words", command_key_show);
    shown->add_flag("--show-words", shown_o->show_words, "Show them though standard output is no terminal");
  }

  void consent(CLI::App* c, apply_options& a) {
    c->add_flag("--auto-approve", a.auto_approve, "Do not ask; overrides no protection");
    c->add_option("--wait", a.wait, "What to wait for: ready, deployed or none")->type_name("WHAT")->check(CLI::IsMember({"ready", "deployed", "none"}));
    c->add_option("--timeout", a.timeout, "How long to wait (default 30m); the work goes on after it")->type_name("TIME");
  }

  void planning() {
    auto* validate = add("validate", "Check storage.yaml, offline");
    auto v = options<common_flags>();
    common(validate, *v);
    runs(validate, v, *v, command_validate);

    auto* schema = add("schema", "Print the JSON Schema of storage.yaml");
    auto s = options<common_flags>();
    runs(schema, s, *s, command_schema);

    auto* diff = add("diff", "Look, and print what apply would do; changes nothing");
    auto d = options<plan_options>();
    common(diff, d->common);
    diff->add_flag("--detailed-exitcode", d->detailed_exitcode, "Exit with 2 when there are changes");
    diff->add_flag("--offline", d->offline, "From the recorded state alone, without a look at nodes");
    runs(diff, d, d->common, command_diff);

    auto* apply = add("apply", "Show the plan, ask, and make it so");
    auto a = options<apply_options>();
    common(apply, a->common);
    consent(apply, *a);
    apply->add_flag("--cancel", a->cancel, "Stop what was applied: what is in flight ends, nothing more begins");
    runs(apply, a, a->common, command_apply);

    auto* grow = add("grow", "Set the capacity in storage.yaml, then apply");
    auto g = options<size_options>();
    grow->add_option("SIZE", g->size, "The new usable capacity, e.g. 40GiB")->required();
    common(grow, g->apply.common);
    consent(grow, g->apply);
    runs(grow, g, g->apply.common, command_grow);

    auto* more = add("add-nodes", "Add storage nodes in storage.yaml, then apply");
    auto m = options<size_options>();
    more->add_option("N", m->nodes, "How many more")->required()->check(CLI::Range(1, 10000));
    common(more, m->apply.common);
    consent(more, m->apply);
    runs(more, m, m->apply.common, command_add_nodes);

    auto* destroy = add("destroy", "Delete everything of the volume; refused while it is protected");
    auto x = options<apply_options>();
    common(destroy, x->common);
    destroy->add_option("--confirm", x->confirm, "The volume's name, instead of typing it")->type_name("NAME");
    destroy->add_flag("--abandon", x->abandon, "Give up what cannot be deleted, as on a machine that is gone for good");
    destroy->add_option("--timeout", x->timeout, "How long to wait (default 30m); the work goes on after it")->type_name("TIME");
    runs(destroy, x, x->common, command_destroy);
  }

  void engine() {
    auto* run = add("run", "The engine in the foreground: keeps true what was applied");
    auto o = options<run_options>();
    common(run, o->common);
    run->add_flag("--follow", o->follow, "Also accept edits of the file that only add");
    run->add_option("--log-file", o->log_file, "Log there (rotated) instead of to standard error")->type_name("FILE");
    run->add_option("--log-level", o->log_level, "debug, info, warning or error")->type_name("LEVEL")->check(CLI::IsMember({"debug", "info", "warning", "error"}));
    run->add_flag("--log-json", o->log_json, "The log as JSON lines");
    run->add_option("--ready-fd", o->ready_fd)->group("");
    run->add_flag("--watch", o->watch)->group("");
    run->add_option("--leash-fd", o->leash_fd)->group("");
    run->add_option("--engine-pid", o->engine_pid)->group("");
    runs(run, o, o->common, command_run);

    auto* start = add("start", "Start the engine in the background");
    auto s = options<start_options>();
    common(start, s->common);
    start->add_option("--timeout", s->timeout, "How long to wait for the mount (default 15m); the work goes on after it")->type_name("TIME");
    runs(start, s, s->common, command_start);

    auto stopping = [&](const char* name, const char* summary, int (*function)(const stop_options&, terminal&)) {
      auto* c = add(name, summary);
      auto p = options<stop_options>();
      common(c, p->common);
      c->add_option("--timeout", p->timeout, "How long to wait (default 15m)")->type_name("TIME");
      runs(c, p, p->common, function);
    };
    stopping("stop", "Stop the engine: seal, sync, unmount; nodes run on", command_stop);
    stopping("restart", "Stop and start the engine", command_restart);

    auto* logs = add("logs", "The log of the engine in the background");
    auto l = options<logs_options>();
    common(logs, l->common);
    logs->add_flag("-f,--follow", l->follow, "Go on showing");
    logs->add_option("-n,--lines", l->lines, "How many lines to begin with (default 50)")->type_name("N")->check(CLI::Range(1, 1000000));
    runs(logs, l, l->common, command_logs);
  }

  void looking() {
    auto* status = add("status", "Health, capacity, redundancy, bytes at risk, conditions");
    auto o = options<status_options>();
    common(status, o->common);
    auto* watch = status->add_flag("-w,--watch", o->watch, "Again and again");
    status->add_option("--interval", o->interval, "How often with --watch (default 2s)")->type_name("TIME");
    status->add_option("--wait-for", o->wait_for, "Wait for a state or condition, e.g. Ready")->type_name("WHAT")->excludes(watch);
    status->add_option("--timeout", o->timeout, "How long to wait (default 10m)")->type_name("TIME");
    runs(status, o, o->common, command_status);

    auto* nodes = add("nodes", "The storage nodes");
    auto n = options<common_flags>();
    common(nodes, *n);
    nodes->require_subcommand(0, 1);
    nodes->callback([this, n, nodes] {
      if (!nodes->get_subcommands().empty()) return;
      chosen_.color = n->color;
      chosen_.command = [n](terminal& t) { return command_nodes(*n, t); };
    });
    auto one = [&](const char* name, const char* summary, bool asks, int (*function)(const node_options&, terminal&)) {
      auto* c = add(nodes, name, summary);
      auto p = options<node_options>();
      c->add_option("NODE", p->node, "n1, n2, …")->required();
      common(c, p->common);
      if (asks) c->add_flag("-y,--yes", p->yes, "Do not ask");
      runs(c, p, p->common, function);
      return std::pair{c, p};
    };
    one("show", "Everything about one node", false, command_nodes_show);
    one("replace", "Replace a node by a new one", true, command_nodes_replace);
    one("drain", "Empty a node and give it back", true, command_nodes_drain);
    auto [gone, gone_o] = one("delete", "Delete a node that nothing needs any more, now", true, command_nodes_delete);
    gone->add_flag("--abandon", gone_o->abandon, "Give it up if it cannot be deleted, as on a machine that is gone for good");
    gone->add_option("--timeout", gone_o->timeout, "How long to wait (default 5m)")->type_name("TIME");

    auto* events = add("events", "What happened");
    auto e = options<events_options>();
    common(events, e->common);
    events->add_flag("-f,--follow", e->follow, "Go on showing");
    events->add_option("-n,--last", e->last, "How many to begin with (default 50)")->type_name("N")->check(CLI::Range(0, 100000));
    runs(events, e, e->common, command_events);
  }

  void plain(CLI::App* c, int (*function)(const common_flags&, terminal&)) {
    auto o = options<common_flags>();
    common(c, *o);
    runs(c, o, *o, function);
  }

  void money_and_mount() {
    auto* wallet = add("wallet", "Balance, burn and runway");
    auto w = options<wallet_options>();
    common(wallet, w->common);
    wallet->require_subcommand(0, 1);
    wallet->callback([this, w, wallet] {
      if (!wallet->get_subcommands().empty()) return;
      chosen_.color = w->common.color;
      chosen_.command = [w](terminal& t) { return command_wallet(*w, t); };
    });
    auto* topup = add(wallet, "topup", "Put money into the wallet");
    auto u = options<wallet_options>();
    topup->add_option("AMOUNT", u->amount, "TFT, e.g. 50 or 12.5 (default 100)");
    common(topup, u->common);
    runs(topup, u, u->common, command_wallet_topup);
    auto* history = add(wallet, "history", "What came in and went out");
    auto h = options<wallet_options>();
    common(history, h->common);
    runs(history, h, h->common, command_wallet_history);

    plain(add("mount", "Mount it again after umount"), command_mount);
    plain(add("umount", "Unmount, and stay so until mount"), command_umount);
    plain(add("suspend", "Stop reconciling"), command_suspend);
    plain(add("resume", "Go on reconciling"), command_resume);
    auto* cache = add("cache", "The caches");
    cache->require_subcommand(1);
    plain(add(cache, "drop", "Empty every cache, once nothing is at risk"), command_cache_drop);
  }

  void local_grid() {
    auto* grid = add("grid", "The local grid's hosts and processes");
    grid->require_subcommand(1);
    auto one = [&](const char* name, const char* summary, int (*function)(const grid_options&, terminal&)) {
      auto* c = add(grid, name, summary);
      auto o = options<grid_options>();
      return std::tuple{c, o, [this, c, o, function] {
                          common(c, o->common);
                          runs(c, o, o->common, function);
                        }};
    };
    std::get<2>(one("hosts", "Its hosts and what is free", command_grid_hosts))();
    std::get<2>(one("nodes", "Its nodes and their processes", command_grid_nodes))();
    auto [kill, o, finish] = one("kill", "Make a node die; it stays dead", command_grid_kill);
    kill->add_option("NODE", o->node, "n1, n2, …")->required();
    kill->add_flag("--wipe", o->wipe, "Delete its data too");
    finish();
    std::get<2>(one("up", "Start every node that is stopped", command_grid_up))();
    std::get<2>(one("down", "Stop every node's process", command_grid_down))();
  }

  void the_rest() {
    add("zdb", "The zdb server, usable alone; 'qs zdb --help' lists its flags")->callback([] {});
    auto* completion = add("completion", "Completions for a shell");
    auto c = options<text_options>();
    completion->add_option("SHELL", c->what, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
    runs(completion, c, c->common, command_completion);
    auto* version = add("version", "The version");
    auto v = options<common_flags>();
    version->add_flag("--json", v->json, "JSON on standard output");
    runs(version, v, *v, command_version);
  }

  std::shared_ptr<CLI::App> app_;
  std::vector<std::shared_ptr<void>> kept_;
  parsed chosen_;
};

/// CLI11 2.1 prints "Usage: qs apply [OPTIONS] [FILE]" and options unsorted: as they were added, which is what we want.
std::string help_of(const CLI::App& app, const std::string& path) {
  if (path.empty()) return app.help("", CLI::AppFormatMode::Normal);
  auto last = path.rfind(' ');
  return app.help(last == std::string::npos ? "qs" : "qs " + path.substr(0, last), CLI::AppFormatMode::Normal);
}

void collect(const CLI::App& app, const std::string& path, std::vector<command_help>& out) {
  command_help h;
  h.path = path;
  h.summary = app.get_description();
  h.text = help_of(app, path);
  for (const auto* o : app.get_options()) {
    if (o->get_group().empty() || o->get_name() == "--help" || !o->nonpositional()) continue;
    for (const auto& s : o->get_snames()) h.flags.push_back("-" + s);
    for (const auto& l : o->get_lnames()) h.flags.push_back("--" + l);
  }
  std::erase_if(h.flags, [](const std::string& f) { return f == "-h" || f == "--help"; });
  auto subcommands = app.get_subcommands(nullptr);
  for (const auto* s : subcommands) h.words.push_back(s->get_name());
  out.push_back(std::move(h));
  for (const auto* s : subcommands) collect(*s, path.empty() ? s->get_name() : path + " " + s->get_name(), out);
}

/// CLI11 says "A subcommand is required" to a slip of the pen; this names it and what is near. "" when that is not it.
std::string unknown_command(const CLI::App& app, const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front().rfind('-', 0) == 0) return {};
  std::vector<std::string_view> known;
  for (const auto* s : app.get_subcommands(nullptr)) {
    if (s->get_name() == arguments.front()) return {};
    known.push_back(s->get_name());
  }
  auto near = nearest(arguments.front(), known);
  return fmt::format("error: there is no command '{}'{}\n'qs --help' lists them.\n", arguments.front(),
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

} // namespace

parsed parse(const std::vector<std::string>& arguments) {
  auto b = std::make_shared<builder>();
  try {
    auto reversed = std::vector<std::string>{arguments.rbegin(), arguments.rend()};
    b->app().parse(reversed);
  } catch (const CLI::Success& e) {
    std::ostringstream out;
    std::ostringstream err;
    b->app().exit(e, out, err);
    return {exit_done, out.str(), err.str(), "auto", {}};
  } catch (const CLI::ParseError& e) {
    if (auto unknown = unknown_command(b->app(), arguments); !unknown.empty()) return {exit_usage, {}, unknown, "auto", {}};
    auto which = std::string{"qs"};
    const auto* at = &b->app();
    while (!at->get_subcommands().empty()) {
      at = at->get_subcommands().front();
      which += " " + at->get_name();
    }
    return {exit_usage, {}, fmt::format("error: {}\n'{} --help' shows what it takes.\n", e.what(), which), "auto", {}};
  }
  auto out = b->chosen();
  // The commands refer to options that the builder keeps.
  out.command = [b, inner = out.command](terminal& t) { return inner ? inner(t) : exit_usage; };
  return out;
}

std::vector<command_help> all_commands() {
  builder b;
  std::vector<command_help> out;
  collect(b.app(), {}, out);
  return out;
}

} // namespace qs::cli
