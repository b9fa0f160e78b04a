#include "codec/keys.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sodium.h>

#include "base/assert.hpp"

namespace qs::codec {
namespace {

constexpr std::size_t context_bytes = crypto_kdf_CONTEXTBYTES;
constexpr char root_context[] = "qs-root1";
constexpr char wallet_context[] = "qs-wllt1";
constexpr char volume_context[] = "qs-vol-1";
static_assert(sizeof root_context == context_bytes + 1 &&
              sizeof wallet_context == context_bytes + 1 &&
              sizeof volume_context == context_bytes + 1);

void derive_into(mutable_byte_span out, const key32& from, std::uint64_t number,
                 const char* context) {
  auto code =
      crypto_kdf_derive_from_key(uchars(out), out.size(), number, context, uchars(from.bytes()));
  QS_ASSERT(code == 0);
}

key32 sub_key(const key32& from, std::uint64_t number, const char* context) {
  key32 out;
  derive_into(out.bytes(), from, number, context);
  return out;
}

/// A keyed hash that is itself key material: not left behind on the stack.
key32 secret_hash(byte_span key, byte_span message) {
  auto hash = keyed_hash(key, message);
  key32 out{hash};
  sodium_memzero(hash.data(), hash.size());
  return out;
}

buffer node_fields(model::node_id node, std::uint32_t incarnation) {
  buffer out;
  byte_writer{out}.put(node.number).put(incarnation);
  return out;
}

constexpr std::uint16_t list_format = 1;
constexpr std::size_t wrapped_key_bytes = 32 + seal_overhead;
constexpr std::uint16_t identity_format = 1;

seal_place wrap_place(const volume_keys& keys, std::uint32_t generation) {
  return {seal_kind::wrapped_volume_key, keys.id(), {}, generation};
}

} // namespace

volume_keys volume_keys::derive(const root_secret& root, std::string_view volume_name) {
  auto message = to_buffer("qs volume 1");
  byte_writer{message}.put_bytes(as_bytes(volume_name));
  auto volume_root = secret_hash(root.bytes(), message);
  auto key = [&](std::uint64_t number) { return sub_key(volume_root, number, root_context); };
  volume_keys out;
  derive_into(out.id_, volume_root, 1, root_context);
  out.wrap_ = key(2);
  out.node_names_ = key(3);
  out.node_passwords_ = key(4);
  out.pointer_name_ = key(5);
  out.reservation_signer_ = key(6);
  out.local_secrets_ = key(7);
  out.shard_headers_ = key(8);
  out.shard_header_nonces_ = key(9);
  out.object_names_ = key(10);
  out.dirent_hashes_ = key(11);
  out.identity_objects_ = key(12);
  return out;
}

std::string volume_keys::node_name(model::node_id node, std::uint32_t incarnation) const {
  auto hash = keyed_hash(node_names_.bytes(), node_fields(node, incarnation));
  return "qs" + to_hex(byte_span{hash}.first(8));
}

std::string volume_keys::node_password(std::string_view name) const {
  // A NUL would let a node's name meet the derivation of another kind.
  QS_ASSERT(name.find('\0') == std::string_view::npos);
  return to_base64url(secret_hash(node_passwords_.bytes(), as_bytes(name)).bytes());
}

std::string volume_keys::derived_password(std::string_view kind, std::string_view name) const {
  QS_ASSERT(!kind.empty() && kind.size() <= 255 && kind.find('\0') == std::string_view::npos);
  buffer message;
  byte_writer{message}.put_bytes(as_bytes(kind)).put(std::uint8_t{0}).put_bytes(as_bytes(name));
  return to_base64url(secret_hash(node_passwords_.bytes(), message).bytes());
}

object_key volume_keys::pointer_name() const {
  object_key out;
  std::copy_n(pointer_name_.bytes().begin(), out.size(), out.begin());
  return out;
}

object_key volume_keys::object_name(object_kind kind, byte_span what) const {
  buffer message;
  message.reserve(1 + what.size());
  byte_writer{message}.put(static_cast<std::uint8_t>(kind)).put_bytes(what);
  return keyed_hash(object_names_.bytes(), message);
}

object_key volume_keys::shard_name(const segment_id& segment, unsigned index) const {
  QS_ASSERT(index <= 255);
  buffer what;
  byte_writer w{what};
  put(w, segment);
  w.put(static_cast<std::uint8_t>(index));
  return object_name(object_kind::shard, what);
}

object_key volume_keys::identity_name(model::node_id node, std::uint32_t incarnation) const {
  return object_name(object_kind::identity, node_fields(node, incarnation));
}

std::uint64_t volume_keys::dirent_hash(std::string_view name) const {
  auto hash = keyed_hash(dirent_hashes_.bytes(), as_bytes(name));
  auto bits = load_le<std::uint64_t>(hash.data()) >> 9;
  return bits == 0 ? 1 : bits;
}

key32 wallet_key(const root_secret& root) { return sub_key(root, 1, wallet_context); }

volume_key::volume_key(std::uint32_t generation, const key32& key)
    : generation_{generation}, key_{key}, segments_{sub_key(key, 1, volume_context)},
      journal_{sub_key(key, 2, volume_context)}, directories_{sub_key(key, 3, volume_context)},
      shard_macs_{sub_key(key, 4, volume_context)} {}

volume_key volume_key::make(std::uint32_t generation, random_source& random) {
  key32 key;
  random.fill(key.bytes());
  return {generation, key};
}

key_ring::key_ring(volume_keys volume, std::vector<volume_key> generations)
    : volume_{std::move(volume)}, generations_{std::move(generations)} {
  QS_ASSERT(!generations_.empty());
  std::sort(generations_.begin(), generations_.end(),
            [](const auto& a, const auto& b) { return a.generation() < b.generation(); });
  for (std::size_t i = 1; i < generations_.size(); ++i)
    QS_ASSERT(generations_[i - 1].generation() != generations_[i].generation());
}

result<const volume_key*> key_ring::find(std::uint32_t generation) const {
  for (const auto& key : generations_)
    if (key.generation() == generation) return &key;
  return error{errc::not_found,
               fmt::format("volume key generation {} is not among the {} known; read the key "
                           "list again",
                           generation, generations_.size())};
}

buffer wrap_volume_keys(const volume_keys& keys, const std::vector<volume_key>& list,
                        random_source& random) {
  QS_ASSERT(!list.empty() && list.size() <= volume_key_generations_max);
  buffer out;
  byte_writer w{out};
  w.put(list_format).put(static_cast<std::uint16_t>(list.size()));
  for (const auto& key : list)
    w.put(key.generation())
        .put_bytes(
            seal(keys.wrap(), wrap_place(keys, key.generation()), key.key().bytes(), random));
  return out;
}

result<std::vector<volume_key>> unwrap_volume_keys(const volume_keys& keys, byte_span wrapped) {
  byte_reader in{wrapped};
  auto format = in.get<std::uint16_t>();
  auto count = in.get<std::uint16_t>();
  if (in.ok() && format != list_format)
    return error{errc::version_mismatch,
                 fmt::format("the volume key list has format {}, this version reads {}", format,
                             list_format)};
  if (!in.ok() || count == 0 || count > volume_key_generations_max ||
      in.left() != count * (4 + wrapped_key_bytes))
    return error{errc::corrupt, "the volume key list has a wrong length"};
  std::vector<volume_key> out;
  for (unsigned i = 0; i < count; ++i) {
    auto generation = in.get<std::uint32_t>();
    auto sealed = in.get_bytes(wrapped_key_bytes);
    auto plain = open(keys.wrap(), wrap_place(keys, generation), sealed);
    if (!plain)
      return error{errc::corrupt,
                   fmt::format("volume key generation {} does not open with this phrase and volume "
                               "name",
                               generation)};
    if (std::any_of(out.begin(), out.end(),
                    [&](const auto& k) { return k.generation() == generation; })) {
      sodium_memzero(plain->data(), plain->size());
      return error{errc::corrupt,
                   fmt::format("volume key generation {} is listed twice", generation)};
    }
    out.emplace_back(generation, key32{*plain});
    sodium_memzero(plain->data(), plain->size());
  }
  return out;
}

buffer make_identity(const volume_keys& keys, model::node_id node, std::uint32_t incarnation,
                     random_source& random) {
  buffer plain;
  byte_writer{plain}
      .put(identity_format)
      .put_bytes(keys.id())
      .put(node.number)
      .put(incarnation)
      .put_bytes(random.array<16>());
  return seal(keys.identity_objects(), {seal_kind::identity, keys.id(), {}, 0}, plain, random);
}

result<node_identity> open_identity(const volume_keys& keys, byte_span sealed) {
  QS_TRY_ASSIGN(auto plain,
                open(keys.identity_objects(), {seal_kind::identity, keys.id(), {}, 0}, sealed));
  byte_reader in{plain};
  auto format = in.get<std::uint16_t>();
  node_identity out;
  out.volume = in.get_array<16>();
  out.node.number = in.get<std::uint32_t>();
  out.incarnation = in.get<std::uint32_t>();
  out.random_id = in.get_array<16>();
  if (in.ok() && format != identity_format)
    return error{errc::version_mismatch,
                 fmt::format("a node's identity has format {}, this version reads {}", format,
                             identity_format)};
  if (!in.done() || out.volume != keys.id())
    return error{errc::corrupt, "a node's identity has wrong fields"};
  return out;
}

} // namespace qs::codec
