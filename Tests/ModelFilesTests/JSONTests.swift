// The JSON parser: what RFC 8259 allows, what it forbids, and what Foundation reads.

import Foundation
import KindredModelFiles
import Testing

@Suite(.timeLimit(.minutes(1))) struct JSONTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func parse(_ text: some Sequence<UInt8>) throws -> JSONValue {
    try JSONNode(path: folder.write(text, as: "value.json")).value
  }

  private func parse(_ text: String) throws -> JSONValue { try parse(text.utf8) }

  @Test func readsValues() throws {
    #expect(try parse(" null ") == .null)
    #expect(try parse("[true,false]") == .array([.bool(true), .bool(false)]))
    #expect(try parse("-9223372036854775808") == .integer(.min))
    #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
    #expect(
      try parse("[0,-0.5,1e3,1E-2,1.25e+2]")
        == .array([.integer(0), .number(-0.5), .number(1_000), .number(0.01), .number(125)]))
    #expect(try parse(#""\u00e9\n\"\\\/\b\f\r\t\ud83c\udf0d""#) == .string("é\n\"\\/\u{08}\u{0C}\r\t🌍"))
    #expect(try parse("{\"a\" : [ ] , \"b\" : { } }") == .object(["a": .array([]), "b": .object([:])]))
  }

  @Test(arguments: [
    "", " ", "tru", "nulL", "01", "-", "1.", ".5", "1e", "+1", "NaN", "Infinity", "1e999", "0x1", "[1,]",
    "[1 2]",
    "[", "]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "'a'", "\"", "\"\\", "\"\\u",
    "\"\\u12\"",
    "\"\\u+123\"", "\"\\x\"", "\"\\ud83c\"", "\"\\ud83c\\n\"", "\"\\udf0d\"", "\"\\udf0d\\udf0d\"",
    "\"\\ud83c\\ud83c\"", "\"\n\"",
    "\"\u{01}\"", "1 2", "{} {}", "// no\n1",
  ])
  func refuses(text: String) throws {
    let error = #expect(throws: ModelFileError.self) { try parse(text) }
    let isOneLine = error?.description.contains(where: \.isNewline) == false
    #expect(isOneLine)
  }

  @Test func refusesTextThatIsNoUTF8() throws {
    #expect(throws: ModelFileError.self) { try parse([0x22, 0xFF, 0x22]) }
    #expect(throws: ModelFileError.self) { try parse([0x22, 0xED, 0xA0, 0x80, 0x22]) }
  }

  @Test func limitsDepthAndNumbers() throws {
    let deep = String(repeating: "[", count: 128) + String(repeating: "]", count: 128)
    #expect(throws: Never.self) { try parse(deep) }
    #expect(throws: ModelFileError.self) { try parse("[[" + deep + "]]") }
    #expect(throws: ModelFileError.self) { try parse(String(repeating: "[", count: 1_000_000)) }
    #expect(throws: ModelFileError.self) { try parse("0." + String(repeating: "1", count: 1_000_000)) }
  }

  @Test func takesLinearTimeForEscapes() throws {
    let text = try parse("\"" + String(repeating: "\\n", count: 500_000) + "\"").string
    #expect(text?.utf8.count == 500_000)
  }

  @Test func keepsKeysThatDifferOnlyInBytes() throws {
    // U+F914 and U+6A02 are canonically equivalent, so equal as Swift strings; vocabularies have both.
    let value = try parse("{\"\u{F914}\": 1, \"\u{6A02}\": 2}")
    guard case .object(let object) = value else { throw ModelFileError(path: "", problem: "no object") }
    #expect(object.count == 2)
    #expect(object["\u{F914}"] == .integer(1))
    #expect(object["\u{6A02}"] == .integer(2))
  }

  @Test func theLastOfEqualKeysCounts() throws {
    let node = try JSONNode(path: folder.write("{\"a\": 1, \"a\": 2}".utf8, as: "twice.json"))
    #expect(try node.integer("a") == 2)
  }

  @Test func agreesWithFoundation() throws {
    let path = try fixture("all-types.json")
    let ours = try JSONEncoder().encode(JSONNode(path: path).value)
    let read = try #require(try JSONSerialization.jsonObject(with: ours) as? NSDictionary)
    let theirs = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: path)))
    #expect(read == theirs as? NSDictionary)
  }

  @Test func errorsNameTheKeyPath() throws {
    let text = #"{"a": {"b": [1, "x"], "c": 2.5, "d": null}, "list": [{"id": "no"}]}"#
    let path = try folder.write(text.utf8, as: "config.json")
    let node = try JSONNode(path: path)
    func description(_ body: () throws -> Void) -> String? {
      #expect(throws: ModelFileError.self, performing: body)?.description
    }
    #expect(try node.double("a.c") == 2.5)
    #expect(description { _ = try node.integer("a.c") } == "\(path): a.c: expected an integer, found 2.5")
    #expect(
      description { _ = try node.integers("a.b") } == "\(path): a.b: expected integers, found an array of 2")
    #expect(try node.integerIfPresent("a.d") == nil)
    #expect(description { _ = try node.bool("a.d") } == "\(path): a.d: expected true or false, found nothing")
    #expect(
      description { _ = try node.object("a.b") } == "\(path): a.b: expected an object, found an array of 2")
    let element = try #require(try node.elements("list").first)
    #expect(
      description { _ = try element.integer("id") }
        == "\(path): list[0].id: expected an integer, found \"no\"")
  }
}
