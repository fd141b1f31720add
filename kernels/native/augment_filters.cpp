// What an Augmenter does to pixels by their neighbours; noise, and what noise or a colour takes the place of.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "augment.h"
#include "augment_kernels.h"
#include "augment_random.h"

namespace fasttrain {
void Augmenter::sharpen(float factor) {
  const AugmentKernels& kernels = augment_kernels(current_simd());
  const std::size_t pitch = std::size_t{3} * width_;
  std::uint8_t* out = other();
  std::memcpy(out, image_.data(), image_bytes());  // the border stays as it is
  if (width_ < 3) return swap();
  for (int y = 1; y + 1 < height_; ++y) {
    const std::uint8_t* row = image_.data() + pitch * y + 3;
    kernels.sharpen_row(row - pitch, row, row + pitch, 3 * (width_ - 2), factor, out + pitch * y + 3);
  }
  swap();
}

// Pillow's Gaussian: three extended box blurs (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended
// box filtering", SSVM 2011), across and then down, each rounded to bytes.
void Augmenter::gaussian_blur(float radius) {
  const double variance = double(radius) * radius / 3.0;
  const double length = std::sqrt(12.0 * variance + 1.0);
  const double whole = std::floor((length - 1.0) / 2.0);
  const double part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) /
                      (6 * (variance - (whole + 1) * (whole + 1)));
  box_blur(static_cast<float>(whole + part));
}

void Augmenter::box_blur(float size) {
  if (!(size > 0.0f)) return;
  const AugmentKernels& kernels = augment_kernels(current_simd());
  const int radius = std::min(static_cast<int>(size), 127);
  const auto weight = static_cast<std::uint32_t>((1 << 24) / (size * 2 + 1));
  const std::uint32_t far = ((1u << 24) - (2 * radius + 1) * weight) / 2;
  const std::size_t pitch = std::size_t{3} * width_, margin = std::size_t{3} * (radius + 1);
  lines_.resize(2 * (pitch + 2 * margin));
  std::uint8_t* lines[2] = {lines_.data() + margin, lines_.data() + pitch + 3 * margin};
  for (int y = 0; y < height_; ++y) {
    std::uint8_t* row = image_.data() + pitch * y;
    std::memcpy(lines[0], row, pitch);
    for (int pass = 0; pass < 3; ++pass) {
      std::uint8_t* line = lines[pass % 2];
      for (std::size_t i = 0; i < margin; ++i) {
        line[static_cast<std::ptrdiff_t>(i) - static_cast<std::ptrdiff_t>(margin)] = line[i % 3];
        line[pitch + i] = line[pitch - 3 + i % 3];
      }
      kernels.blur_row(line, static_cast<int>(pitch), 3, radius, weight, far, pass == 2 ? row : lines[1 - pass % 2]);
    }
  }
  std::vector<const std::uint8_t*> rows(static_cast<std::size_t>(2 * radius) + 3);
  for (int pass = 0; pass < 3; ++pass) {
    std::uint8_t* out = other();
    for (int y = 0; y < height_; ++y) {
      for (int tap = 0; tap < 2 * radius + 3; ++tap) {
        rows[tap] = image_.data() + pitch * std::min(std::max(y + tap - radius - 1, 0), height_ - 1);
      }
      kernels.blur_columns(rows.data(), static_cast<int>(pitch), radius, weight, far, out + pitch * y);
    }
    swap();
  }
}

void Augmenter::add_noise(float deviation, std::uint64_t seed, std::uint32_t stream) {
  constexpr int kSome = 512;
  const AugmentKernels& kernels = augment_kernels(current_simd());
  float values[kSome];
  for (std::size_t done = 0; done < image_bytes(); done += kSome) {
    const int some = static_cast<int>(std::min<std::size_t>(kSome, image_bytes() - done));
    kernels.normals(seed, stream, static_cast<std::uint32_t>(done), some, 0.0f, deviation, values);
    kernels.add(image_.data() + done, values, static_cast<std::size_t>(some));
  }
}

void Augmenter::erase(const float* arguments, std::uint64_t seed, std::uint32_t stream) {
  const int top = std::max(static_cast<int>(arguments[0]), 0), left = std::max(static_cast<int>(arguments[1]), 0);
  const int bottom = std::min(static_cast<int>(arguments[0]) + static_cast<int>(arguments[2]), height_);
  const int right = std::min(static_cast<int>(arguments[1]) + static_cast<int>(arguments[3]), width_);
  const bool noise = arguments[4] != 0.0f;
  std::uint8_t colour[3];
  for (int i = 0; i < 3; ++i) colour[i] = clamped_byte(arguments[5 + i] + 0.5);
  for (int y = top; y < bottom; ++y) {
    std::uint8_t* line = image_.data() + std::size_t{3} * (std::size_t(width_) * y);
    for (int x = left; x < right; ++x) {
      if (!noise) {
        std::memcpy(line + 3 * x, colour, 3);
        continue;
      }
      for (int i = 0; i < 3; ++i) {
        const auto counter = static_cast<std::uint32_t>((std::size_t(width_) * y + x) * 3 + i);
        const float z = normal_of(random_bits(seed, stream, counter));
        line[3 * x + i] = clamped_byte(style_.noise_mean[i] + style_.noise_deviation[i] * z + 0.5f);
      }
    }
  }
}

}  // namespace fasttrain
