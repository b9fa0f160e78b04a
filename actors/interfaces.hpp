// All protocols of the engine's actors but the data path's (data_interfaces.hpp). This header is
// the picture of who talks to whom: one sentence per message. Handles point down the tree; a child
// knows its parent only as a sender or through a callback, so that the system can end.
#pragma once

#include <cstdint>

#include <caf/fwd.hpp>
#include <caf/replies_to.hpp>
#include <caf/typed_actor.hpp>

#include "actors/data_interfaces.hpp"
#include "actors/messages.hpp"

namespace qs::actors {

using blocking_actor = caf::typed_actor<
    // Runs the job on its lane; replies when it has run. Its outcome is where the job left it.
    caf::replies_to<run_job>::with<job_done>,
    // Takes no more jobs; replies when none is running.
    caf::replies_to<stop_all>::with<done>>;

using reservation_actor = caf::typed_actor<
    // Does one thing for its node with its provider, intent first. Replies when that is settled and
    // recorded; a second order while one runs is answered with errc::busy.
    caf::replies_to<node_order_message>::with<node_report>>;

using mount_actor = caf::typed_actor<
    // Makes the volume if asked to, opens it and goes on with what was under way.
    caf::replies_to<volume_setup>::with<done>,
    // Hands the groups to the open volume.
    caf::replies_to<change_groups>::with<done>,
    // What is known of the nodes now.
    caf::reacts_to<change_nodes>,
    // The declared capacity changed.
    caf::reacts_to<change_capacity>,
    // A node came back as another, or was away: what it confirmed lately is to be checked.
    caf::reacts_to<doubt_node>,
    // The figures of the moment.
    caf::replies_to<get_report>::with<volume_report>,
    // Puts the volume into the kernel's tree; replies when it is visible there.
    caf::replies_to<do_mount>::with<done>,
    // Takes it out again.
    caf::replies_to<do_unmount>::with<done>,
    // Seals what is open; replies when nothing is at risk, or errc::timed_out.
    caf::replies_to<do_drain>::with<done>,
    // After a drain: every local copy and cached page goes.
    caf::replies_to<drop_caches>::with<done>,
    // Keeps so many rebuilds and moves going.
    caf::reacts_to<repair_some>,
    // Orderly end of the volume; the mount must be gone.
    caf::replies_to<close_volume>::with<done>,
    // Its own timer.
    caf::reacts_to<tick>>;

using monitor_actor = caf::typed_actor<
    // A connection tells of a change: state, a new life, fresh figures. (What a link_listener_actor
    // takes.)
    caf::reacts_to<link_atom, link_report>,
    // Watches this node through this connection from now on.
    caf::reacts_to<attach_atom, model::node_id, connection_actor>,
    // Watches it no more.
    caf::reacts_to<detach_atom, model::node_id>,
    // How often, and how many must answer for silence to count.
    caf::reacts_to<watch_pace>,
    // Its own timer: one round.
    caf::reacts_to<tick>,
    // A round right now; replies with what it gave.
    caf::replies_to<get_report>::with<monitor_round>>;

using payment_actor = caf::typed_actor<
    // Balance and burn as the provider tells them.
    caf::replies_to<look_at_wallet>::with<model::wallet_view>,
    // May this node be reserved now? done, or errc::over_budget with what is missing.
    caf::replies_to<price_check>::with<done>,
    // The terms: what the spec allows and what its nodes cost.
    caf::reacts_to<budget>,
    // Its own timer: the runway.
    caf::reacts_to<tick>>;

using repair_actor = caf::typed_actor<
    // Its own timer: tells the mount actor how much rebuilding may go on now.
    caf::reacts_to<tick>>;

using supervisor_actor = caf::typed_actor<
    // Its own timer: a reconcile pass.
    caf::reacts_to<tick>,
    // A round of the monitor.
    caf::reacts_to<monitor_round>,
    // A connection tells of a change; handed on to dispersal and the monitor that is there now. (What a
    // link_listener_actor takes.)
    caf::reacts_to<link_atom, link_report>,
    // Something happened that a person may want to know.
    caf::reacts_to<note_event>,
    // A command from the control socket.
    caf::replies_to<control_request>::with<control_reply>,
    // Orderly stop: unmount, seal, close, stop the tree; replies when all is down.
    caf::replies_to<stop_all>::with<done>>;

} // namespace qs::actors
