// Numbers in options that are too small, or so large that what is counted by them would overflow.

import KindredTransformer

/// Says what is wrong with a size, if anything is: `tokens: expected 1 to 16777216, found 0`.
func sizeProblem(_ name: String, _ value: Int, atLeast least: Int = 1) -> String? {
  let limit = DecoderConfiguration.sizeLimit
  return (least...limit).contains(value) ? nil : "\(name): expected \(least) to \(limit), found \(value)"
}
