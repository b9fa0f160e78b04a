// Every atom of our protocols, in one block: at most 10 characters of letters, digits, '_' and
// space, no two texts equal. CAF's own (caf::get_atom, caf::put_atom, caf::ok_atom, ...) are used
// where their word fits.
#pragma once

#include <cstdint>

#include <caf/atom.hpp>
#include <caf/type_id.hpp>

// clang-format off
CAF_ADD_ATOM(qs_atoms, qs::actors, attach_atom,  "attach")
CAF_ADD_ATOM(qs_atoms, qs::actors, check_atom,   "check")
CAF_ADD_ATOM(qs_atoms, qs::actors, del_atom,     "del")
CAF_ADD_ATOM(qs_atoms, qs::actors, detach_atom,  "detach")
CAF_ADD_ATOM(qs_atoms, qs::actors, dialed_atom,  "dialed")
CAF_ADD_ATOM(qs_atoms, qs::actors, fetch_atom,   "fetch")
CAF_ADD_ATOM(qs_atoms, qs::actors, hurry_atom,   "hurry")
CAF_ADD_ATOM(qs_atoms, qs::actors, link_atom,    "linkstate")
CAF_ADD_ATOM(qs_atoms, qs::actors, move_to_atom, "moveto")
CAF_ADD_ATOM(qs_atoms, qs::actors, ping_atom,    "ping")
CAF_ADD_ATOM(qs_atoms, qs::actors, remove_atom,  "remove")
CAF_ADD_ATOM(qs_atoms, qs::actors, read_atom,    "read")
CAF_ADD_ATOM(qs_atoms, qs::actors, set_atom,     "set")
CAF_ADD_ATOM(qs_atoms, qs::actors, status_atom,  "status")
CAF_ADD_ATOM(qs_atoms, qs::actors, stop_atom,    "stop")
CAF_ADD_ATOM(qs_atoms, qs::actors, store_atom,   "store")
CAF_ADD_ATOM(qs_atoms, qs::actors, barrier_atom, "barrier")
CAF_ADD_ATOM(qs_atoms, qs::actors, alarm_atom,   "alarm")
// clang-format on
