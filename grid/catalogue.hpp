// The catalogue of the local grid: which hosts there are, where they are said to stand, what they
// hold and cost. A file that users edit, <grid>/catalogue.json (docs/grid-local.md); made with 24
// hosts when missing, then left alone. Not the reservations: what is free on a host is reckoned by
// those who know them. Pure but for load(); any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/node.hpp"

namespace qs::grid {

/// The text that a new grid gets: 24 hosts, 8 farms, 5 countries.
std::string default_catalogue();

/// Hosts with `free` = capacity. Errors: invalid_argument listing everything that is wrong, one
/// line each.
result<std::vector<model::host>> parse_catalogue(std::string_view text);

/// Reads <grid>/catalogue.json. Where it is missing it is the default one, which `make` writes
/// there first.
result<std::vector<model::host>> load_catalogue(const std::filesystem::path& grid,
                                                bool make = true);

/// What a node costs for 30 days, rounded up to the smallest unit.
model::money monthly_price(model::money per_gib_month, byte_count size);

} // namespace qs::grid
