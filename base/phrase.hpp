// The 24 words: BIP39 English words for 256 bits of entropy and their checksum. No PBKDF2, no passphrase:
// the entropy itself is the root of all keys (docs/formats/keys.md). Never printed except by `qs init` and `qs key`.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/random.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"

namespace qs {

using root_secret = secret<32>;

/// The 2048 words of BIP39, sorted.
const std::array<std::string_view, 2048>& bip39_words();

root_secret new_root(random_source& random);
/// 24 words joined by single spaces.
std::string to_phrase(const root_secret& root);
/// Accepts any white space and letter case. Errors: invalid_argument that names the word that is not in the list
/// (by its position, with a near word suggested) or says that the checksum does not fit.
result<root_secret> from_phrase(std::string_view text);

} // namespace qs
