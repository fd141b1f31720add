// The arithmetic is that of fasttrain/kernels/augment_effects.py, which says where it differs from the original.
#include "augment_effects.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "augment_jpeg.h"
#include "augment_planes.h"
#include "augment_random.h"

namespace fasttrain {
namespace {

constexpr double kWater[3] = {175.0, 238.0, 238.0}, kMud[3] = {63.0, 42.0, 20.0}, kIce[3] = {200.0, 225.0, 255.0};

std::uint8_t rounded(double value) {
  return static_cast<std::uint8_t>(std::min(std::max(std::floor(value + 0.5), 0.0), 255.0));
}

template <class Change>
void each_pixel(const EffectImage& image, const Change& change) {
  std::uint8_t* pixel = image.pixels;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, pixel += 3) change(pixel, y, x);
  }
}

// --- colours ---------------------------------------------------------------------------------------------------------

void fade(const EffectImage& image, double share) {
  std::uint64_t sums[3] = {};
  each_pixel(image, [&](const std::uint8_t* pixel, int, int) {
    for (int i = 0; i < 3; ++i) sums[i] += pixel[i];
  });
  std::uint8_t table[3][256];
  for (int i = 0; i < 3; ++i) {
    const double mean = static_cast<double>(sums[i]) / (static_cast<double>(image.height) * image.width);
    for (int value = 0; value < 256; ++value) table[i][value] = rounded((value - mean) * share + mean);
  }
  each_pixel(image, [&](std::uint8_t* pixel, int, int) {
    for (int i = 0; i < 3; ++i) pixel[i] = table[i][pixel[i]];
  });
}

void lighten(const EffectImage& image, double share) {
  each_pixel(image, [&](std::uint8_t* pixel, int, int) {
    const double value = std::max({pixel[0], pixel[1], pixel[2]}), wanted = std::min(value + 255 * share, 255.0);
    for (int i = 0; i < 3; ++i) pixel[i] = rounded(value > 0 ? pixel[i] * wanted / value : wanted);
  });
}

void saturate(const EffectImage& image, double factor, double addend) {
  each_pixel(image, [&](std::uint8_t* pixel, int, int) {
    const double value = std::max({pixel[0], pixel[1], pixel[2]});
    const double spread = value - std::min({pixel[0], pixel[1], pixel[2]});
    const double saturation = spread / std::max(value, 1.0);
    const double wanted = std::min(std::max(saturation * factor + addend, 0.0), 1.0);
    for (int i = 0; i < 3; ++i) {
      const double grey = i == 0 ? value : value * (1 - wanted);
      pixel[i] = rounded(spread > 0 ? value - (value - pixel[i]) * wanted * value / spread : grey);
    }
  });
}

// --- resolution ------------------------------------------------------------------------------------------------------

// Pillow's BOX filter along one axis, rounded to bytes.
void box_resize(const std::uint8_t* from, int lines, int length, int between, int line_step, std::uint8_t* to, int wanted,
                int to_between, int to_line_step) {
  const double scale = static_cast<double>(length) / wanted, support = 0.5 * std::max(scale, 1.0);
  for (int x = 0; x < wanted; ++x) {
    const double centre = (x + 0.5) * scale;
    int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    int end = std::max(std::min(static_cast<int>(centre + support + 0.5), length), first + 1);
    // Pixels whose centres lie within the box, its right edge included.
    while (end - first > 1 && first + 0.5 - centre <= -support) ++first;
    while (end - first > 1 && end - 0.5 - centre > support) --end;
    for (int line = 0; line < lines; ++line) {
      for (int channel = 0; channel < 3; ++channel) {
        int sum = 0;
        for (int i = first; i < end; ++i) sum += from[std::size_t(line_step) * line + std::size_t(between) * i + channel];
        const int count = end - first;
        to[std::size_t(to_line_step) * line + std::size_t(to_between) * x + channel] =
            static_cast<std::uint8_t>((2 * sum + count) / (2 * count));
      }
    }
  }
}

void pixelate(const EffectImage& image, double share) {
  share = std::min(share, 1.0);
  const int height = image.height, width = image.width;
  const int wide = std::max(static_cast<int>(width * share), 1), tall = std::max(static_cast<int>(height * share), 1);
  std::vector<std::uint8_t> narrow(std::size_t{3} * wide * height), small(std::size_t{3} * wide * tall);
  box_resize(image.pixels, height, width, 3, 3 * width, narrow.data(), wide, 3, 3 * wide);
  box_resize(narrow.data(), wide, height, 3 * wide, 3, small.data(), tall, 3 * wide, 3);
  std::vector<std::uint8_t> broad(std::size_t{3} * width * tall);
  box_resize(small.data(), tall, wide, 3, 3 * wide, broad.data(), width, 3, 3 * width);
  box_resize(broad.data(), width, tall, 3 * width, 3, image.pixels, height, 3 * width, 3);
}

// --- geometry --------------------------------------------------------------------------------------------------------

double mirrored(double at, int length) {
  if (length == 1) return 0.0;
  const double period = 2.0 * (length - 1);
  at = std::fabs(at);
  at -= std::floor(at / period) * period;
  return std::min(at, period - at);
}

// Where each pixel looks.
class Elastic {
 public:
  Elastic(int height, int width, const Effect& effect)
      : height_(height), width_(width), alpha_(effect.arguments[0]),
        across_(uniform_plane(height, width, 0.005 * height, effect.seed, effect.stream)),
        down_(uniform_plane(height, width, 0.005 * height, effect.seed, effect.stream + 1)) {
    const double sigma = 0.01 * std::max(height, width);
    smooth(across_, sigma);
    smooth(down_, sigma);
  }

  double x(int y, int x) const { return mirrored(x + across_.at(y, x) * alpha_, width_); }
  double y(int y, int x) const { return mirrored(y + down_.at(y, x) * alpha_, height_); }
  // The pixel of a mask that is shown.
  std::size_t nearest(double at_x, double at_y) const {
    const int near_x = std::min(static_cast<int>(at_x + 0.5), width_ - 1);
    const int near_y = std::min(static_cast<int>(at_y + 0.5), height_ - 1);
    return std::size_t(width_) * near_y + near_x;
  }

 private:
  int height_, width_;
  double alpha_;
  Plane across_, down_;
};

void elastic(const EffectImage& image, const Effect& effect) {
  const int height = image.height, width = image.width;
  const Elastic looks(height, width, effect);
  std::memcpy(image.spare, image.pixels, std::size_t{3} * height * width);
  std::vector<std::uint8_t> mask;
  if (image.mask != nullptr) mask.assign(image.mask, image.mask + std::size_t(height) * width);
  each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
    const double at_x = looks.x(y, x), at_y = looks.y(y, x);
    const int left = std::min(static_cast<int>(at_x), width - 1), top = std::min(static_cast<int>(at_y), height - 1);
    const int right = std::min(left + 1, width - 1), bottom = std::min(top + 1, height - 1);
    const double share_x = at_x - left, share_y = at_y - top;
    const auto value = [&](int line, int column, int channel) {
      return static_cast<double>(image.spare[(std::size_t(width) * line + column) * 3 + channel]);
    };
    for (int i = 0; i < 3; ++i) {
      const double upper = value(top, left, i) + (value(top, right, i) - value(top, left, i)) * share_x;
      const double lower = value(bottom, left, i) + (value(bottom, right, i) - value(bottom, left, i)) * share_x;
      pixel[i] = rounded(upper + (lower - upper) * share_y);
    }
    if (image.mask != nullptr) image.mask[std::size_t(width) * y + x] = mask[looks.nearest(at_x, at_y)];
  });
}

// --- weather ---------------------------------------------------------------------------------------------------------

void fog(const EffectImage& image, const Effect& effect) {
  const double strength = effect.arguments[0];
  const std::size_t bytes = std::size_t{3} * image.height * image.width;
  const double most = *std::max_element(image.pixels, image.pixels + bytes) / 255.0;
  if (most == 0.0) return;
  const Plane cloud = plasma(image.height, image.width, effect.arguments[1], effect.seed, effect.stream);
  each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
    const double thick = 255 * (strength * cloud.at(y, x));
    for (int i = 0; i < 3; ++i) pixel[i] = rounded((pixel[i] + thick) * most / (most + strength));
  });
}

void frost(const EffectImage& image, const Effect& effect) {
  const Plane soft = plasma(image.height, image.width, 1.9, effect.seed, effect.stream);
  const Plane rough = plasma(image.height, image.width, 1.4, effect.seed, effect.stream + 1);
  each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
    const double ridge = 1 - std::fabs(2 * rough.at(y, x) - 1);
    const double ice = std::min(std::max(1.4 * soft.at(y, x) * ridge + 0.5 * soft.at(y, x) - 0.25, 0.0), 1.0);
    for (int i = 0; i < 3; ++i) pixel[i] = rounded(effect.arguments[0] * pixel[i] + effect.arguments[1] * (ice * kIce[i]));
  });
}

// Motion blur: looks back along a line, with the weights of half a Gaussian.
Plane streaks(const Plane& layer, int radius, double sigma, double degrees) {
  constexpr double kPi = 3.14159265358979323846;
  Plane result(layer.height, layer.width);
  const int length = 2 * radius + 1;
  std::vector<double> weights(length);
  double total = 0.0;
  for (int i = 0; i < length; ++i) total += weights[i] = std::exp(-(double(i) * i) / (2 * sigma * sigma));
  const double angle = degrees * kPi / 180;
  for (int i = 0; i < length; ++i) {
    const int down = -static_cast<int>(std::ceil(i * std::sin(angle) - 0.5));
    const int across = -static_cast<int>(std::ceil(i * std::cos(angle) - 0.5));
    for (int y = 0; y < layer.height; ++y) {
      const int row = std::min(std::max(y - down, 0), layer.height - 1);
      for (int x = 0; x < layer.width; ++x) {
        const int column = std::min(std::max(x - across, 0), layer.width - 1);
        result.at(y, x) += weights[i] / total * layer.at(row, column);
      }
    }
  }
  return result;
}

void snow(const EffectImage& image, const Effect& effect) {
  const float* a = effect.arguments;
  const int height = image.height, width = image.width;
  const double zoom = std::max(double(a[2]), 1.0);
  const int tall = static_cast<int>(std::ceil(height / zoom)), wide = static_cast<int>(std::ceil(width / zoom));
  const Plane flakes = normal_plane(tall, wide, a[0], a[1], effect.seed, effect.stream);
  Plane layer(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const double value = look(flakes, std::min(x / zoom, wide - 1.0), std::min(y / zoom, tall - 1.0));
      layer.at(y, x) = value < double(a[3]) ? 0.0 : std::min(std::max(value, 0.0), 1.0);
    }
  }
  const double angle = -135 + 90 * double(uniform_of(random_bits(effect.seed, effect.stream + 1, 0)));
  layer = streaks(layer, std::min(std::max(static_cast<int>(a[4]), 0), 255), a[5], angle);
  const double share = a[6];
  each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
    const double grey = pixel[0] * 0.299 + pixel[1] * 0.587 + pixel[2] * 0.114;
    const double flake = 255 * (layer.at(y, x) + layer.at(height - 1 - y, width - 1 - x));
    for (int i = 0; i < 3; ++i) {
      pixel[i] = rounded(share * pixel[i] + (1 - share) * std::max<double>(pixel[i], grey * 1.5 + 127.5) + flake);
    }
  });
}

void spatter(const EffectImage& image, const Effect& effect) {
  const float* a = effect.arguments;
  const int height = image.height, width = image.width;
  const double least = a[3], strength = a[4];
  Plane liquid = normal_plane(height, width, a[0], a[1], effect.seed, effect.stream);
  smooth(liquid, a[2]);
  if (a[5] != 0.0f) {
    for (double& value : liquid.values) value = value > least ? 1.0 : 0.0;
    smooth(liquid, strength);
    return each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
      const double spot = liquid.at(y, x) < 0.8 ? 0.0 : liquid.at(y, x);
      for (int i = 0; i < 3; ++i) pixel[i] = rounded(pixel[i] * (1 - spot) + spot * kMud[i]);
    });
  }
  for (double& value : liquid.values) value = std::max(value - least, 0.0);
  Plane slope(height, width);
  double most = 1e-12;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      if (liquid.at(y, x) <= 0.0) continue;
      const double after = liquid.at(std::min(y + 1, height - 1), std::min(x + 1, width - 1));
      slope.at(y, x) = std::fabs(after - liquid.at(std::max(y - 1, 0), std::max(x - 1, 0)));
      most = std::max(most, slope.at(y, x));
    }
  }
  each_pixel(image, [&](std::uint8_t* pixel, int y, int x) {
    for (int i = 0; i < 3; ++i) pixel[i] = rounded(pixel[i] + strength * (slope.at(y, x) / most) * kWater[i]);
  });
}

}  // namespace

void move_mask(std::uint8_t* mask, int height, int width, const Effect& effect) {
  const Elastic looks(height, width, effect);
  const std::vector<std::uint8_t> before(mask, mask + std::size_t(height) * width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) mask[std::size_t(width) * y + x] = before[looks.nearest(looks.x(y, x), looks.y(y, x))];
  }
}

void apply_effect(const EffectImage& image, const Effect& effect) {
  const float* arguments = effect.arguments;
  switch (effect.operation) {
    case AugmentOp::fade:
      return fade(image, arguments[0]);
    case AugmentOp::lighten:
      return lighten(image, arguments[0]);
    case AugmentOp::saturate:
      return saturate(image, arguments[0], arguments[1]);
    case AugmentOp::pixelate:
      return pixelate(image, arguments[0]);
    case AugmentOp::jpeg:
      return compress_jpeg(image.pixels, image.height, image.width, static_cast<int>(arguments[0]));
    case AugmentOp::elastic:
      return elastic(image, effect);
    case AugmentOp::fog:
      return fog(image, effect);
    case AugmentOp::frost:
      return frost(image, effect);
    case AugmentOp::snow:
      return snow(image, effect);
    case AugmentOp::spatter:
      return spatter(image, effect);
    default:
      return;
  }
}

}  // namespace fasttrain
