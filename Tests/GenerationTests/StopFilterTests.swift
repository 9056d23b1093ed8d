import KindredGeneration
import Testing

@Suite struct StopFilterTests {
  /// What is shown of `pieces`, and whether a stop string ended it.
  func shown(_ pieces: [String], _ stops: [String]) -> (String, Bool) {
    var filter = StopFilter(stops)
    let text = pieces.map { filter.push($0) }.joined()
    return (text + filter.flush(), filter.hasStopped)
  }

  @Test func stopsAcrossPieces() {
    #expect(shown(["ab", "c#", "#d"], ["##"]) == ("abc", true))
    #expect(shown(["ab##cd"], ["##"]) == ("ab", true))
    #expect(shown(["ab#", "c"], ["##"]) == ("ab#c", false))
    #expect(shown(["ab#"], ["##"]) == ("ab#", false))
    #expect(shown(["aab", "aac"], ["aac", "zz"]) == ("aab", true))
    #expect(shown(["xaaaac"], ["aac"]) == ("xaa", true))
  }

  @Test func theEarliestStopWins() {
    #expect(shown(["one two three"], ["three", "two"]) == ("one ", true))
    #expect(shown(["äö", "ü"], ["ö", ""]) == ("ä", true))
    #expect(shown(["text"], []) == ("text", false))
  }

  @Test func textIsShownAsSoonAsItIsSafe() {
    var filter = StopFilter(["END"])
    #expect(filter.push("abc") == "abc")
    #expect(filter.push("E") == "")
    #expect(filter.push("x") == "Ex")
  }
}
