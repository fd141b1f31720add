#include "permutohedral.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

namespace fasttrain {
namespace {

constexpr int kFarthest = 32000;  // coordinates of vertices, which keys hold in 16 bits

// All coordinates of a vertex but the last one, which follows from them: their sum is 0.
struct Key {
  std::array<std::int16_t, kLatticeDimensions> at{};

  bool operator==(const Key& other) const { return std::memcmp(&at, &other.at, sizeof at) == 0; }
  std::uint64_t hash() const {
    std::uint64_t low, high;
    std::memcpy(&low, at.data(), 8);
    std::memcpy(&high, at.data() + 4, 8);
    std::uint64_t mixed = (low ^ (high * 0x9E3779B97F4A7C15ull)) * 0xBF58476D1CE4E5B9ull;
    mixed ^= mixed >> 32;
    mixed *= 0x94D049BB133111EBull;
    return mixed ^ (mixed >> 29);
  }
};

// Numbers of keys, from 1 on in the order in which they were met. The table is far larger than a cache: whoever knows the
// next keys asks for their slots ahead.
class Numbers {
 public:
  Numbers() : slots_(1 << 16), keys_(1) {}

  void fetch(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]); }
  std::uint32_t find_or_add(const Key& key, std::uint64_t hash) {
    Slot& slot = slots_[slot_of(key, hash)];
    if (slot.number) return slot.number;
    const auto number = static_cast<std::uint32_t>(keys_.size());
    slot = {number, tag_of(hash)};
    keys_.push_back(key);
    if (2 * keys_.size() > slots_.size()) grow();
    return number;
  }
  std::uint32_t find(const Key& key, std::uint64_t hash) const { return slots_[slot_of(key, hash)].number; }
  const std::vector<Key>& keys() const { return keys_; }

 private:
  struct Slot {
    std::uint32_t number = 0, tag = 0;  // keys of other tags need not be looked at
  };

  static std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }
  std::size_t slot_of(const Key& key, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t place = hash & mask;
    for (; slots_[place].number; place = (place + 1) & mask) {
      if (slots_[place].tag == tag_of(hash) && keys_[slots_[place].number] == key) break;
    }
    return place;
  }
  void grow() {
    slots_.assign(2 * slots_.size(), Slot{});
    for (std::uint32_t number = 1; number < keys_.size(); ++number) {
      const std::uint64_t hash = keys_[number].hash();
      slots_[slot_of(keys_[number], hash)] = {number, tag_of(hash)};
    }
  }

  std::vector<Slot> slots_;
  std::vector<Key> keys_;
};

// Keys whose slots are asked for together.
struct Ahead {
  static constexpr std::size_t kMost = 96;
  std::array<Key, kMost> keys;
  std::array<std::uint64_t, kMost> hashes;
  std::size_t count = 0;

  void add(const Key& key, const Numbers& numbers) {
    keys[count] = key;
    hashes[count] = key.hash();
    numbers.fetch(hashes[count++]);
  }
};

// The simplex that a point lies in: the remainder-0 corner, the order of the residuals, and barycentric weights.
struct Simplex {
  float corner[kLatticeDimensions + 1];
  int rank[kLatticeDimensions + 1];
  float weights[kLatticeDimensions + 2];
};

Simplex simplex_of(const float* feature, const float* scales, std::size_t dimensions) {
  const int corners = static_cast<int>(dimensions) + 1;
  float elevated[kLatticeDimensions + 1];
  float sum = 0;
  for (int i = corners - 1; i > 0; --i) {
    const float scaled = feature[i - 1] * scales[i - 1];
    elevated[i] = sum - static_cast<float>(i) * scaled;
    sum += scaled;
  }
  elevated[0] = sum;
  Simplex found;
  int excess = 0;
  for (int i = 0; i < corners; ++i) {
    const float rounded = std::nearbyint(elevated[i] / static_cast<float>(corners));
    if (!(std::fabs(rounded) * static_cast<float>(corners) < kFarthest)) {
      throw std::invalid_argument("features lie too far from 0; take larger standard deviations");
    }
    found.corner[i] = rounded * static_cast<float>(corners);
    found.rank[i] = 0;
    excess += static_cast<int>(rounded);
  }
  for (int i = 0; i + 1 < corners; ++i) {
    for (int j = i + 1; j < corners; ++j) {
      const bool less = elevated[i] - found.corner[i] < elevated[j] - found.corner[j];
      ++found.rank[less ? i : j];
    }
  }
  for (int i = 0; i < corners; ++i) {  // back onto the plane where coordinates add up to 0
    found.rank[i] += excess;
    const int turn = found.rank[i] < 0 ? 1 : found.rank[i] >= corners ? -1 : 0;
    found.rank[i] += turn * corners;
    found.corner[i] += static_cast<float>(turn * corners);
  }
  for (int i = 0; i <= corners; ++i) found.weights[i] = 0;
  for (int i = 0; i < corners; ++i) {
    const float share = (elevated[i] - found.corner[i]) / static_cast<float>(corners);
    found.weights[corners - 1 - found.rank[i]] += share;
    found.weights[corners - found.rank[i]] -= share;
  }
  found.weights[0] += 1 + found.weights[corners];
  return found;
}

Key key_of(const Simplex& simplex, int remainder, std::size_t dimensions) {
  const int corners = static_cast<int>(dimensions) + 1;
  Key key;
  for (std::size_t i = 0; i < dimensions; ++i) {
    const int step = simplex.rank[i] < corners - remainder ? remainder : remainder - corners;
    key.at[i] = static_cast<std::int16_t>(static_cast<int>(simplex.corner[i]) + step);
  }
  return key;
}

// The vertex that follows another one along an axis of the lattice.
Key following(const Key& key, std::size_t axis, std::size_t dimensions) {
  Key next;
  for (std::size_t i = 0; i < dimensions; ++i) {
    next.at[i] = static_cast<std::int16_t>(key.at[i] + (i == axis ? static_cast<int>(dimensions) : -1));
  }
  return next;
}

// Adds what the corners of a simplex hold to `total`, or the other way round; `kChannels` 0 for any number.
template <std::size_t kChannels>
struct Passes {
  std::size_t channels;
  std::size_t count() const { return kChannels ? kChannels : channels; }

  void splat(const float* value, float weight, float* vertex) const {
    for (std::size_t c = 0; c < count(); ++c) vertex[c] += weight * value[c];
  }
  void blur(const float* here, const float* next, const float* previous, float* out) const {
    for (std::size_t c = 0; c < count(); ++c) out[c] = here[c] + 0.5f * (next[c] + previous[c]);
  }
};

template <std::size_t kChannels>
void run(const Passes<kChannels>& passes, std::size_t points, std::size_t corners, std::size_t rows, const std::uint32_t* places,
         const float* weights, const std::uint32_t* next, const std::uint32_t* previous, const float* values, float* out) {
  const std::size_t channels = passes.count();
  std::vector<float> held(rows * channels, 0.0f), blurred(rows * channels, 0.0f);
  for (std::size_t i = 0; i < points * corners; ++i) {
    passes.splat(values + i / corners * channels, weights[i], held.data() + places[i] * channels);
  }
  for (std::size_t axis = 0; axis < corners; ++axis) {
    for (std::size_t row = 1; row < rows; ++row) {
      passes.blur(held.data() + row * channels, held.data() + next[axis * rows + row] * channels,
                  held.data() + previous[axis * rows + row] * channels, blurred.data() + row * channels);
    }
    std::swap(held, blurred);
  }
  for (std::size_t point = 0; point < points; ++point) {
    float* const target = out + point * channels;
    for (std::size_t c = 0; c < channels; ++c) target[c] = 0;
    for (std::size_t i = point * corners; i < (point + 1) * corners; ++i) {
      passes.splat(held.data() + places[i] * channels, weights[i], target);
    }
  }
}

}  // namespace

Lattice::Lattice(const float* features, std::size_t points, std::size_t dimensions)
    : points_(points), corners_(dimensions + 1), places_(points * corners_), weights_(points * corners_) {
  float scales[kLatticeDimensions];
  for (std::size_t i = 0; i < dimensions; ++i) {
    const double steps = static_cast<double>((i + 1) * (i + 2));
    scales[i] = static_cast<float>(static_cast<double>(corners_) * std::sqrt(2.0 / 3.0 / steps));
  }
  Numbers numbers;
  const std::size_t together = Ahead::kMost / corners_;
  for (std::size_t first = 0; first < points; first += together) {
    const std::size_t last = std::min(points, first + together);
    Ahead ahead;
    for (std::size_t point = first; point < last; ++point) {
      const Simplex simplex = simplex_of(features + point * dimensions, scales, dimensions);
      for (std::size_t corner = 0; corner < corners_; ++corner) {
        ahead.add(key_of(simplex, static_cast<int>(corner), dimensions), numbers);
        weights_[point * corners_ + corner] = simplex.weights[corner];
      }
    }
    for (std::size_t i = 0; i < ahead.count; ++i) {
      places_[first * corners_ + i] = numbers.find_or_add(ahead.keys[i], ahead.hashes[i]);
    }
  }
  const std::size_t rows = numbers.keys().size();
  vertices_ = rows - 1;
  next_.assign(corners_ * rows, 0);
  previous_.assign(corners_ * rows, 0);
  for (std::size_t axis = 0; axis < corners_; ++axis) {
    std::uint32_t *const next = next_.data() + axis * rows, *const previous = previous_.data() + axis * rows;
    for (std::size_t first = 1; first < rows; first += Ahead::kMost) {
      const std::size_t last = std::min(rows, first + Ahead::kMost);
      Ahead ahead;
      for (std::size_t row = first; row < last; ++row) ahead.add(following(numbers.keys()[row], axis, dimensions), numbers);
      for (std::size_t i = 0; i < ahead.count; ++i) {
        next[first + i] = numbers.find(ahead.keys[i], ahead.hashes[i]);
        previous[next[first + i]] = static_cast<std::uint32_t>(first + i);
      }
    }
    previous[0] = 0;
  }
}

void Lattice::filter(const float* values, std::size_t channels, float* out) const {
  const auto with = [&](const auto& passes) {
    run(passes, points_, corners_, vertices_ + 1, places_.data(), weights_.data(), next_.data(), previous_.data(), values,
        out);
  };
  if (channels == 1) {
    with(Passes<1>{channels});
  } else {
    with(Passes<0>{channels});
  }
}

}  // namespace fasttrain
