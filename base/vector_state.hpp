// The processor's vector registers after a library that leaves their upper halves in use (ISA-L never
// executes VZEROUPPER): from then on SSE instructions wait for each other, and every change of thread
// saves two and a half kilobytes, until somebody clears them. Call it behind such a library.
#pragma once

namespace qs {

void clear_vector_upper() noexcept;

} // namespace qs
