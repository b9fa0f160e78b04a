#include "grid/identity.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "zdb/blocking_client.hpp"

namespace qs::grid {
namespace {

result<std::unique_ptr<zdb::blocking_client>> connect(const model::endpoint& where,
                                                      const std::string& password,
                                                      std::chrono::milliseconds deadline,
                                                      bool plain) {
  zdb::session_options options;
  options.name_space = where.ns;
  options.password = password;
  options.allow_plain = plain;
  return zdb::blocking_client::connect(stream_address(where), std::move(options), deadline);
}

std::string key_of(const codec::object_key& name) { return to_string(byte_span{name}); }

/// Nothing: no such object.
result<buffer_ptr> read_object(zdb::blocking_client& client, const std::string& key) {
  auto there = client.get(key);
  if (!there && there.err().code == errc::not_found) return buffer_ptr{};
  return there;
}

error other_identity(const model::endpoint& where) {
  return {errc::data_lost,
          fmt::format("{} has the identity of another node, or of an earlier life of this one",
                      stream_address(where))};
}

} // namespace

std::string stream_address(const model::endpoint& where) {
  if (where.address.starts_with('/')) return "unix:" + where.address;
  if (where.address.find(':') != std::string::npos && !where.address.starts_with('['))
    return fmt::format("[{}]:{}", where.address, where.port);
  return fmt::format("{}:{}", where.address, where.port);
}

status write_identity(const model::endpoint& where, const std::string& password,
                      const codec::object_key& name, byte_span sealed,
                      std::chrono::milliseconds deadline, bool plain) {
  QS_TRY_ASSIGN(auto client, connect(where, password, deadline, plain));
  auto key = key_of(name);
  QS_TRY_ASSIGN(auto there, read_object(*client, key));
  if (there && !std::ranges::equal(*there, sealed)) return other_identity(where);
  if (!there) {
    QS_TRY(client->set(key, share(to_buffer(sealed))));
    QS_TRY_ASSIGN(auto back,
                  read_object(*client, key)); // nil to a SET may mean anything (invariant 3)
    if (!back || !std::ranges::equal(*back, sealed))
      return error{errc::data_lost,
                   fmt::format("{} did not keep the identity it was given", stream_address(where))};
  }
  if (!client->has("SYNC")) return {};
  return client->sync();
}

status check_identity(const model::endpoint& where, const std::string& password,
                      const codec::object_key& name, byte_span sealed,
                      std::chrono::milliseconds deadline, bool plain) {
  QS_TRY_ASSIGN(auto client, connect(where, password, deadline, plain));
  QS_TRY_ASSIGN(auto there, read_object(*client, key_of(name)));
  if (!there)
    return error{errc::data_lost,
                 fmt::format("{} answers, but its identity is gone: its data was lost",
                             stream_address(where))};
  if (!std::ranges::equal(*there, sealed)) return other_identity(where);
  return {};
}

} // namespace qs::grid
