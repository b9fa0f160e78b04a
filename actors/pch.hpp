// Precompiled for actors/ only (CMake adds it). <cstdint> first: CAF 0.17.6's own headers forget
// it.
#pragma once

#include <cstdint>

#include <caf/all.hpp>
#include <caf/io/all.hpp>
