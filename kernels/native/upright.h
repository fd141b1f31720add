// Whether an image file asks to be turned before it is shown.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fasttrain {

// False only where the JPEG has no orientation, or the usual one; anything doubtful is true.
bool may_need_turning(const std::uint8_t* data, std::size_t size);

}  // namespace fasttrain
