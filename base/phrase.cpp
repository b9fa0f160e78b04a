#include "base/phrase.hpp"

#include <algorithm>
#include <cctype>
#include <vector>

#include <fmt/format.h>
#include <sodium.h>

#include "base/diagnostic.hpp"

namespace qs {
namespace {

constexpr std::size_t word_count = 24;

/// 32 bytes of entropy and the first byte of their SHA-256: 264 bits, 24 words of 11.
std::array<std::byte, 33> with_checksum(byte_span entropy) {
  std::array<std::byte, 33> out{};
  std::array<std::byte, crypto_hash_sha256_BYTES> hash{};
  crypto_hash_sha256(uchars(mutable_byte_span{hash}), uchars(entropy), entropy.size());
  std::copy(entropy.begin(), entropy.end(), out.begin());
  out[32] = hash[0];
  return out;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> out;
  std::string word;
  for (char c : text) {
    auto u = static_cast<unsigned char>(c);
    if (std::isspace(u) == 0)
      word.push_back(static_cast<char>(std::tolower(u)));
    else if (!word.empty())
      out.push_back(std::exchange(word, {}));
  }
  if (!word.empty()) out.push_back(word);
  return out;
}

} // namespace

root_secret new_root(random_source& random) {
  root_secret root;
  random.fill(root.bytes());
  return root;
}

std::string to_phrase(const root_secret& root) {
  auto bits = with_checksum(root.bytes());
  std::string out;
  for (std::size_t w = 0; w < word_count; ++w) {
    unsigned index = 0;
    for (std::size_t b = w * 11; b < w * 11 + 11; ++b)
      index = index * 2 + ((static_cast<unsigned>(bits[b / 8]) >> (7 - b % 8)) & 1U);
    if (!out.empty()) out += ' ';
    out += bip39_words()[index];
  }
  sodium_memzero(bits.data(), bits.size());
  return out;
}

result<root_secret> from_phrase(std::string_view text) {
  auto words = split_words(text);
  if (words.size() != word_count)
    return error{errc::invalid_argument,
                 fmt::format("the phrase has {} words, it must have {}", words.size(), word_count)};
  const auto& list = bip39_words();
  std::array<std::byte, 33> bits{};
  for (std::size_t w = 0; w < word_count; ++w) {
    auto found = std::lower_bound(list.begin(), list.end(), words[w]);
    if (found == list.end() || *found != words[w]) {
      auto near = nearest(words[w], {list.begin(), list.end()});
      return error{errc::invalid_argument,
                   fmt::format("word {} of the phrase is not in the word list{}", w + 1,
                               near.empty() ? "" : fmt::format("; did you mean '{}'?", near))};
    }
    auto index = static_cast<unsigned>(found - list.begin());
    for (std::size_t b = 0; b < 11; ++b)
      if (((index >> (10 - b)) & 1U) != 0) {
        auto at = w * 11 + b;
        bits[at / 8] |= std::byte{0x80} >> (at % 8);
      }
  }
  root_secret root{byte_span{bits}.first(32)};
  auto expected = with_checksum(root.bytes());
  auto fits = expected[32] == bits[32];
  sodium_memzero(bits.data(), bits.size());
  sodium_memzero(expected.data(), expected.size());
  if (!fits)
    return error{errc::invalid_argument,
                 "the phrase's checksum does not fit: a word is wrong or two are swapped"};
  return root;
}

} // namespace qs
