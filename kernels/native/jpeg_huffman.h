// Tables that tell what the next bits of entropy-coded JPEG data mean (ITU-T T.81, annex F.2), and the reader of the
// bits. The entropy decoders alone include this.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>

#include <jpeglib.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the bit reader loads bytes in this order");

namespace fasttrain {

constexpr int kLookBits = 10;   // codes up to this length are found by one look-up
constexpr int kBlockSize = 64;  // coefficients

// What the next bits mean: a code and the value bits behind it, packed so that the tables stay in the fastest cache.
// All zero stands for a code longer than kLookBits, or for none at all.
class Entry {
 public:
  Entry() = default;
  Entry(int bits, int advance, int size) : packed_(static_cast<std::uint32_t>(bits | advance << 8 | size << 16)) {}

  explicit operator bool() const { return packed_ != 0; }
  unsigned bits() const { return packed_ & 63; }       // of code and value together
  int advance() const { return packed_ >> 8 & 0xFF; }  // AC: coefficients to go on by; 64 ends the block
  int size() const { return packed_ >> 16; }           // bits of the value

 private:
  std::uint32_t packed_ = 0;
};

// The value of an entry whose bits are next (T.81, F.2.2.1: EXTEND), 0 if it has none. Without a branch: signs are as good
// as random. Values below zero are stored less one, so that their magnitude is what their flipped bits say.
inline int value_of(const Entry& entry, std::uint64_t window) {
  const std::uint64_t bits = window << (entry.bits() - static_cast<unsigned>(entry.size()));
  const std::uint64_t flip = (bits >> 63) - 1;  // all ones if it is below zero
  const std::uint64_t magnitude = (bits ^ flip) >> 1 >> (63 - entry.size());
  return static_cast<int>((magnitude ^ flip) - flip);
}

class HuffmanTable {
 public:
  // Whether this is the table for `table` already: most files have the standard's own ones.
  bool is_of(const JHUFF_TBL& table, bool is_dc) const {
    return valid_ && is_dc == is_dc_ && std::memcmp(counts_, table.bits, sizeof counts_) == 0 &&
           std::memcmp(symbols_, table.huffval, sizeof symbols_) == 0;
  }

  // `is_dc` decides what a symbol means. False for a table that libjpeg refuses.
  bool build(const JHUFF_TBL& table, bool is_dc) {
    std::fill(std::begin(look_), std::end(look_), Entry());
    valid_ = false;
    is_dc_ = is_dc;
    std::memcpy(counts_, table.bits, sizeof counts_);
    std::memcpy(symbols_, table.huffval, sizeof symbols_);
    std::uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= 16; ++length) {
      first_code_[length] = code;
      first_index_[length] = index;
      count_[length] = table.bits[length];
      const std::uint32_t stop = code + static_cast<std::uint32_t>(count_[length]);
      if (index + count_[length] > 256 || (count_[length] != 0 && stop >= (1u << length))) return false;  // all ones
      for (int i = 0; i < count_[length]; ++i, ++code, ++index) {
        if (is_dc && symbols_[index] > 15) return false;
        if (length > kLookBits) continue;
        Entry* first = look_ + (code << (kLookBits - length));
        std::fill(first, first + (1 << (kLookBits - length)), meaning(symbols_[index], length));
      }
      code <<= 1;
    }
    valid_ = true;
    return true;
  }

  // Codes of up to kLookBits; nothing for others.
  Entry find_short(std::uint64_t window) const { return look_[window >> (64 - kLookBits)]; }

  Entry find(std::uint64_t window) const {
    const Entry entry = look_[window >> (64 - kLookBits)];
    return entry ? entry : find_long(window);
  }

 private:
  Entry meaning(int symbol, int length) const {
    const int size = is_dc_ ? symbol : symbol & 15, run = symbol >> 4;
    int advance = 1;
    if (!is_dc_) advance = size != 0 ? run + 1 : run == 15 ? 16 : kBlockSize;  // ZRL, or the end of the block
    return {length + size, advance, size};
  }

  Entry find_long(std::uint64_t window) const {
    for (int length = kLookBits + 1; length <= 16; ++length) {
      const std::uint32_t code = static_cast<std::uint32_t>(window >> (64 - length));
      const std::uint32_t place = code - first_code_[length];
      if (code >= first_code_[length] && place < static_cast<std::uint32_t>(count_[length])) {
        return meaning(symbols_[first_index_[length] + place], length);
      }
    }
    return {};
  }

  Entry look_[1 << kLookBits];
  UINT8 counts_[17], symbols_[256];  // as in the file
  bool valid_ = false;
  std::uint32_t first_code_[17];
  int first_index_[17], count_[17];
  bool is_dc_ = false;
};

// A bit reservoir over unstuffed bytes, left-aligned. A refill is one unaligned load and no branch (F. Giesen, "Reading
// bits in far too many ways", variant 4).
class BitReader {
 public:
  explicit BitReader(const std::uint8_t* data) : start_(data), next_(data) {}

  void refill() {  // to 56 bits at the least
    std::uint64_t bytes;
    std::memcpy(&bytes, next_, sizeof bytes);
    window_ |= __builtin_bswap64(bytes) >> held_;
    next_ += (63 - held_) >> 3;
    held_ |= 56;
  }
  std::uint64_t window() const { return window_; }
  void drop(unsigned count) {
    window_ <<= count;
    held_ -= count;
  }
  // The same for a count with a flag of 64 or more beside it, after which the reader is of no use until the flag is cleared.
  void drop_flagged(unsigned count) {
    window_ <<= count & 63;
    held_ -= count;
  }
  void clear_flag() { held_ &= 63; }
  std::size_t position() const { return static_cast<std::size_t>(next_ - start_) * 8 - held_; }  // in bits

 private:
  const std::uint8_t* start_;
  const std::uint8_t* next_;
  std::uint64_t window_ = 0;
  unsigned held_ = 0;
};

// What the next kRunBits bits mean if nobody wants the values: all AC codes that lie in them as a whole, up to the end
// of the block. Most codes are short, so one look-up goes over about three of them.
class Run {
 public:
  void add(unsigned bits, int advance) { packed_ = static_cast<std::uint16_t>(packed_ + bits + (advance << 6)); }
  void end(unsigned bits) { packed_ = static_cast<std::uint16_t>((packed_ + bits) | 1u << 12); }

  bool fits() const { return packed_ != 0; }        // at least one code
  unsigned bits() const { return packed_ & 63; }
  int advance() const { return packed_ >> 6 & 63; }  // coefficients, the end of the block not counted
  bool ends() const { return packed_ >> 12 != 0; }   // the last code ends the block

 private:
  std::uint16_t packed_ = 0;
};

constexpr int kRunBits = 11;
constexpr int kRunsPerRefill = 56 / kRunBits;

class RunTable {
 public:
  void build(const HuffmanTable& table) {
    for (std::uint32_t index = 0; index < (1u << kRunBits); ++index) {
      Run run;
      std::uint64_t window = std::uint64_t{index} << (64 - kRunBits);
      while (true) {
        const Entry entry = table.find_short(window);
        if (!entry || run.bits() + entry.bits() > kRunBits) break;
        if (entry.advance() == kBlockSize) {
          run.end(entry.bits());
          break;
        }
        if (run.advance() + entry.advance() >= kBlockSize) break;
        run.add(entry.bits(), entry.advance());
        window <<= entry.bits();
      }
      runs_[index] = run;
    }
  }

  Run find(std::uint64_t window) const { return runs_[window >> (64 - kRunBits)]; }

 private:
  Run runs_[1 << kRunBits];
};

// The same with the values, for two codes at the most.
struct Pair {
  std::int16_t first_value, second_value;
  std::uint8_t first_advance;   // 0 if the block ends at once
  std::uint8_t second_advance;  // 0 if there is no second coefficient; then the first one's value stands for it
  std::uint8_t bits;            // 0 if not even one code fits
  bool ends;                    // the last code ends the block
};

constexpr int kPairBits = 10;
constexpr int kPairsPerRefill = 56 / kPairBits;

class PairTable {
 public:
  void build(const HuffmanTable& table) {
    for (std::uint32_t index = 0; index < (1u << kPairBits); ++index) {
      Pair pair{};
      std::uint64_t window = std::uint64_t{index} << (64 - kPairBits);
      for (int turn = 0; turn < 3 && !pair.ends; ++turn) {
        const Entry entry = table.find_short(window);
        if (!entry || pair.bits + entry.bits() > kPairBits) break;
        if (entry.advance() == kBlockSize) {
          pair.ends = true;
        } else if (turn == 2 || entry.size() == 0) {
          break;  // a third coefficient, or sixteen zeros
        } else {
          const auto value = static_cast<std::int16_t>(value_of(entry, window));
          (turn == 0 ? pair.first_advance : pair.second_advance) = static_cast<std::uint8_t>(entry.advance());
          if (turn == 0) pair.first_value = value;
          pair.second_value = value;
        }
        pair.bits = static_cast<std::uint8_t>(pair.bits + entry.bits());
        window <<= entry.bits();
      }
      pairs_[index] = pair;
    }
  }

  const Pair& find(std::uint64_t window) const { return pairs_[window >> (64 - kPairBits)]; }

 private:
  Pair pairs_[1 << kPairBits];
};

}  // namespace fasttrain
