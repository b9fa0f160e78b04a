// Every key and every derived name of a volume: from the 24 words' root to node passwords and
// object names. Pure functions of the root; nothing here reads or writes anything. All of it is
// fixed for ever by docs/formats/keys.md (volume.md 1). Objects are values, immutable after they
// are made: any thread may use them. They wipe themselves.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/phrase.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "codec/ids.hpp"
#include "codec/seal.hpp"
#include "model/ids.hpp"

namespace qs::codec {

/// 32 bytes that name an object on a node and tell nothing.
using object_key = model::object_name;

/// What an object name is derived for. Numbers are never given out twice.
enum class object_kind : std::uint8_t {
  shard = 1,
  identity = 2,
  journal = 3,
  claim = 4,
  superblock = 5,
  checkpoint_run = 6,
  manifest = 7,
  configuration = 8,
};

/// The sub-keys of one volume root. One phrase may serve several volumes: the name is part of the
/// derivation.
class volume_keys {
public:
  static volume_keys derive(const root_secret& root, std::string_view volume_name);

  /// Public. The same phrase and name give the same id: the key-check value.
  [[nodiscard]] const volume_id& id() const noexcept { return id_; }
  [[nodiscard]] const key32& wrap() const noexcept { return wrap_; }
  [[nodiscard]] const key32& local_secrets() const noexcept { return local_secrets_; }
  [[nodiscard]] const key32& shard_headers() const noexcept { return shard_headers_; }
  [[nodiscard]] const key32& shard_header_nonces() const noexcept { return shard_header_nonces_; }
  [[nodiscard]] const key32& identity_objects() const noexcept { return identity_objects_; }
  /// Seed of the ed25519 key that signs reservations.
  [[nodiscard]] const key32& reservation_signer_seed() const noexcept {
    return reservation_signer_;
  }

  /// "qs" and 16 hex digits; the provider's namespace name ends in it.
  [[nodiscard]] std::string node_name(model::node_id node, std::uint32_t incarnation) const;
  /// 43 characters of base64url. A secret.
  [[nodiscard]] std::string node_password(std::string_view name) const;
  /// The same for another purpose ("admin" of a local server named `name`). `kind` has 1 to 255
  /// bytes. A secret.
  [[nodiscard]] std::string derived_password(std::string_view kind, std::string_view name) const;

  /// The object every node has: addresses of the registers and the wrapped volume keys.
  [[nodiscard]] object_key pointer_name() const;
  /// `what` must name one thing of that kind, and every field in it must be of fixed width.
  [[nodiscard]] object_key object_name(object_kind kind, byte_span what) const;
  [[nodiscard]] object_key shard_name(const segment_id& segment, unsigned index) const;
  [[nodiscard]] object_key identity_name(model::node_id node, std::uint32_t incarnation) const;

  /// 55 bits, never 0 (0 is stored as 1), keyed so that nobody can choose names that collide.
  [[nodiscard]] std::uint64_t dirent_hash(std::string_view name) const;

private:
  volume_keys() = default;

  volume_id id_{};
  key32 wrap_, node_names_, node_passwords_, pointer_name_, reservation_signer_, local_secrets_,
      shard_headers_, shard_header_nonces_, object_names_, dirent_hashes_, identity_objects_;
};

/// The readdir cookie: hash (55 bits) ‖ disambiguator (8 bits) = 63 bits. As a hash is at least 1 a
/// cookie is at least 256: 0, 1 (`.`) and 2 (`..`) stay free.
constexpr std::uint64_t dirent_cookie(std::uint64_t hash, std::uint8_t disambiguator) noexcept {
  return (hash << 8) | disambiguator;
}

/// The wallet is the root's, not a volume's.
key32 wallet_key(const root_secret& root);

/// One generation of the key that seals data, with its sub-keys.
class volume_key {
public:
  volume_key(std::uint32_t generation, const key32& key);
  static volume_key make(std::uint32_t generation, random_source& random);

  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }
  [[nodiscard]] const key32& key() const noexcept { return key_; }
  [[nodiscard]] const key32& segments() const noexcept { return segments_; }
  [[nodiscard]] const key32& journal() const noexcept { return journal_; }
  [[nodiscard]] const key32& directories() const noexcept { return directories_; }
  [[nodiscard]] const key32& shard_macs() const noexcept { return shard_macs_; }

private:
  std::uint32_t generation_;
  key32 key_, segments_, journal_, directories_, shard_macs_;
};

/// All that opens and seals a volume's data: the derived keys and every generation of the volume
/// key.
class key_ring {
public:
  /// `generations` must not be empty; their numbers must differ.
  key_ring(volume_keys volume, std::vector<volume_key> generations);

  [[nodiscard]] const volume_keys& volume() const noexcept { return volume_; }
  [[nodiscard]] const std::vector<volume_key>& generations() const noexcept { return generations_; }
  /// The highest generation: what new segments use.
  [[nodiscard]] const volume_key& newest() const noexcept { return generations_.back(); }
  /// Errors: not_found.
  [[nodiscard]] result<const volume_key*> find(std::uint32_t generation) const;

private:
  volume_keys volume_;
  std::vector<volume_key> generations_; // ascending
};

inline constexpr std::size_t volume_key_generations_max = 1024;

/// The list of volume keys, each wrapped under volume_keys::wrap(): u16 format, u16 count, 76 bytes
/// each.
buffer wrap_volume_keys(const volume_keys& keys, const std::vector<volume_key>& list,
                        random_source& random);
/// Errors: corrupt (also: not wrapped for this phrase and volume name), version_mismatch.
result<std::vector<volume_key>> unwrap_volume_keys(const volume_keys& keys, byte_span wrapped);

/// What proves that a node is the node we reserved and still has what we gave it.
struct node_identity {
  volume_id volume{};
  model::node_id node;
  std::uint32_t incarnation = 0;
  std::array<std::byte, 16> random_id{};
  bool operator==(const node_identity&) const = default;
};

/// A new random id, sealed: keep these bytes (in the intent) and write exactly them, under
/// identity_name().
buffer make_identity(const volume_keys& keys, model::node_id node, std::uint32_t incarnation,
                     random_source& random);
/// Errors: corrupt. The caller compares node, incarnation and random id with what it expects.
result<node_identity> open_identity(const volume_keys& keys, byte_span sealed);

} // namespace qs::codec
