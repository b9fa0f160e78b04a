#include "spec/codes.hpp"

#include <algorithm>

namespace qs::spec {

// One line is one entry.
// clang-format off
const std::vector<code_info>& codes() {
  static const std::vector<code_info> list{
      {"QS0001", "The file or a line is too long", "A storage.yaml has at most 1 MiB and lines of at most 4096 bytes. Check that this is the right file."},
      {"QS0002", "Not UTF-8", "Save the file as UTF-8. The place is the first byte that is not."},
      {"QS0003", "Not YAML", "The text cannot be read as YAML from this place on. Check indentation, brackets and quotes just before it."},
      {"QS0004", "A tab or a control character", "Indent with spaces; remove the character."},
      {"QS0005", "Anchors, aliases and tags", "`&name`, `*name` and `!tag` are not read. Write the value out."},
      {"QS0006", "More than one document", "Remove the second `---` and what follows: one file declares one volume."},
      {"QS0007", "Nested too deeply", "Nothing in storage.yaml is nested that deep. Check brackets and indentation."},
      {"QS0008", "A key twice", "Keep one of the two. Neither silently wins."},
      {"QS0009", "Nothing in the file", "`qs init` writes a file to begin with."},
      {"QS0010", "Too many problems", "Mend those shown and run again."},
      {"QS0011", "Unknown key", "Check the spelling and the indentation; docs/storage-yaml.md has all keys."},
      {"QS0012", "A key is missing", "Add it."},
      {"QS0013", "The wrong kind of value", "A map, a list or a single value is where another of these is expected; a key without a value has none."},
      {"QS0014", "Not a whole number", "Write decimal digits without quotes, leading zeros, `0x` or `_`."},
      {"QS0015", "Not a size", "Write a number and KiB, MiB, GiB, TiB, PiB or kB, MB, GB, TB, PB."},
      {"QS0016", "Not a duration", "Write a number and s, m, h or d."},
      {"QS0017", "Not an amount of money", "Write an amount in TFT with at most 7 decimals: `50 TFT`."},
      {"QS0018", "Not true or false", "Write true or false without quotes; yes, no, on and off are not read."},
      {"QS0019", "Not one of the choices", "Take one of those named."},
      {"QS0020", "Out of range", "Take a value within the limits named."},
      {"QS0021", "Not a name", "1 to 32 small letters, digits and `-`."},
      {"QS0022", "Not a usable path", "Absolute or from `~/`, not `/`, without `..`."},
      {"QS0023", "Not an address", "Write host:port; IPv6 in brackets: `[::1]:9480`. The address of a host may also be `unix:/path` of a socket."},
      {"QS0024", "Not a URL or mail address", "Write it whole, with http://, https://, smtp:// or smtps:// in front of a URL."},
      {"QS0025", "Not a reference", "Only `${env:NAME}` and `${file:PATH}` are replaced, and only in addresses, paths, URLs, passwords and tokens."},
      {"QS0026", "A reference leads nowhere", "Set the variable, or make the file readable, where `qs` runs."},
      {"QS0027", "Not a grid", "`local`, `{hosts: […]}`, `{threefold: {network: main}}`, or a list of these."},
      {"QS0028", "Not a notification", "Each entry is one of webhook, email with smtp, or telegram."},
      {"QS0029", "Empty text", "Give it a value, or remove the key."},
      {"QS0101", "A newer format", "Install a newer qs, or write `version: 1`."},
      {"QS0107", "Too few nodes for the redundancy", "Each shard of a segment is on a node of its own: nodes must be at least data + parity."},
      {"QS0108", "Locations ask for more nodes than there are", "The counts add up. Raise nodes or lower counts."},
      {"QS0109", "Too many nodes in one farm", "A placement group takes at most spread.farm nodes of one farm, so too few would be left to choose from."},
      {"QS0110", "Too many nodes in one country", "As QS0109, by spread.country."},
      {"QS0111", "A location without a place", "Give it country, farm or region."},
      {"QS0112", "A location that is excluded", "Remove it from locations or from exclude."},
      {"QS0113", "Too few hosts", "Add hosts, or allow more nodes of a group on one with spread.host; a lost host then takes as many shards."},
      {"QS0114", "Too few farms", "Add hosts in other farms, or raise spread.farm; a lost farm then takes as many shards."},
      {"QS0115", "No host at a location", "Correct the location, or the farm and country of the hosts."},
      {"QS0116", "A host twice", "Each host needs its own name and address: two entries for one machine would be lost together."},
      {"QS0117", "Local files inside the mount", "Cache and staging must be outside the mount, or they would wait for themselves."},
      {"QS0118", "Cache and staging share a directory", "The cache may be emptied at any time, the staging directory never. Keep them apart."},
      {"QS0121", "failed_after is too short", "A node is asked once per interval; make failed_after at least two intervals."},
      {"QS0122", "replace_after is too short", "Make it at least one interval."},
      {"QS0123", "top_up_below is too long", "It must not be longer than runway."},
      {"QS0202", "grid threefold: not yet", "This version understands it but does not do it. Use `grid: local` or `hosts`."},
      {"QS0204", "confirm: connect: not yet", "This version understands it but does not do it. Use `confirm: wallet`."},
      {"QS0205", "notify: not yet", "This version understands it but does not do it. Remove it."},
      {"QS0206", "fsync: grid: not yet", "This version understands it but does not do it. Use `fsync: local`."},
      {"QS0301", "One host can take data with it (warning)", "Lower spread.host to parity or less, or accept it."},
      {"QS0302", "One farm can take data with it (warning)", "Lower spread.farm to parity or less, or accept it."},
      {"QS0303", "The status page is open to others (warning)", "Listen on 127.0.0.1 unless others should see it."},
      {"QS0304", "An excluded host does not exist (warning)", "Check the spelling."},
      {"QS0305", "failed_after is short (warning)", "With less than two intervals one lost answer makes a node fail."},
      {"QS0306", "max_per_month is 0 (warning)", "Remove it for no limit."},
      {"QS0307", "scrub_every: not yet (warning)", "This version reads every shard only when it is needed; leave it for a later one."},
      {"QS0308", "public_url: not yet (warning)", "This version has nothing to sign on a phone; leave it for a later one."},
  };
  return list;
}
// clang-format on

std::string_view advice(std::string_view code) {
  const auto& list = codes();
  auto found =
      std::find_if(list.begin(), list.end(), [&](const code_info& c) { return c.code == code; });
  return found == list.end() ? std::string_view{} : found->advice;
}

} // namespace qs::spec
