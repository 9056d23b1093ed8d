// A report opened in a headless browser: what is drawn has a size. `Scripts/setup.sh --browser` installs one.

import Foundation
import KindredEvaluation
import Testing

/// A Chromium on the path.
private let browser: URL? = {
  let folders = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":") ?? []
  return ["chromium-headless-shell", "chromium", "google-chrome"].flatMap { name in folders.map { "\($0)/\(name)" } }
    .first(where: FileManager.default.isExecutableFile).map { URL(fileURLWithPath: $0) }
}()

@Suite(.enabled(if: browser != nil, "no headless browser (Scripts/setup.sh --browser)"))
struct ReportBrowserTests {
  /// Measures what the browser has laid out, and writes it into the page's title. Stands before the page's own rule
  /// against scripts.
  private static let probe = """
    <script>addEventListener("load", () => {
      const boxes = (selector) => [...document.querySelectorAll(selector)].map((element) => {
        const box = element.getBoundingClientRect();
        return [Math.round(box.width), Math.round(box.height)];
      });
      const texts = [...document.querySelectorAll("svg text")].filter((text) => {
        const [box, frame] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
      });
      document.title = "probe:" + JSON.stringify({
        figures: boxes("figure svg"), tables: boxes("table"), marks: boxes("circle, polygon, path.heat").length,
        outside: texts.map((text) => text.textContent), page: document.documentElement.scrollWidth });
    });</script>
    """

  private struct Layout: Decodable {
    var figures: [[Int]]
    var tables: [[Int]]
    var marks: Int
    var outside: [String]
    var page: Int
  }

  private func layout(_ html: String) throws -> Layout {
    let folder = try ResultsFolder(["page.html": html.replacing("<head>", with: "<head>" + Self.probe)])
    let process = Process()
    process.executableURL = browser
    process.arguments = [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900",
      "--user-data-dir=\(folder.path)/profile", "--dump-dom", "file://\(folder.path)/page.html",
    ]
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let dom = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    let start = try #require(dom.firstRange(of: "<title>probe:"), "\(dom.prefix(500))")
    let end = try #require(dom[start.upperBound...].firstRange(of: "</title>"))
    let json = dom[start.upperBound..<end.lowerBound].replacing("&amp;", with: "&").replacing("&lt;", with: "<")
      .replacing("&gt;", with: ">")
    return try JSONDecoder().decode(Layout.self, from: Data(json.utf8))
  }

  @Test func figuresAndTablesAreThere() throws {
    let folder = try ResultsFolder(ReportFixtures.all)
    let layout = try layout(try Report(folder: folder.path).html)
    #expect(layout.figures.count == 11 && layout.figures.allSatisfy { $0[0] > 600 && $0[1] > 150 }, "\(layout.figures)")
    #expect(layout.tables.count >= 12)
    // Those in closed details have no size.
    #expect(layout.tables.count { $0[0] > 200 && $0[1] > 40 } >= 10, "\(layout.tables)")
    #expect(layout.marks > 30 && layout.outside.isEmpty, "\(layout.outside)")
    #expect(layout.page <= 1100)
  }
}
