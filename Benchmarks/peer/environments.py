"""The Python environments of the peers, made from PyPI when first needed.

They lie under $PEER_VENVS (default: .venv beside this file). llama.cpp is compiled from the source that
llama-cpp-python carries, which needs python3-venv, gcc, g++ and some minutes.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("PEER_VENVS") or pathlib.Path(__file__).resolve().parent / ".venv")

# GCC 12 declares that _tile_loadconfig reads 8 of its 64 bytes and drops the stores to the others; without these
# flags llama.cpp's AMX code crashes.
COMPILER_FLAGS = "-fno-dse -fno-tree-dse"


@dataclasses.dataclass(frozen=True)
class Environment:
  name: str
  package: str
  version: str
  # For packages that are compiled here: what CMake is told.
  cmake: str = ""

  @property
  def python(self):
    """The environment's interpreter; sets the environment up where it is missing or of another version."""
    python = ROOT / self.name / "bin/python"
    check = f"from importlib.metadata import version; assert version('{self.package}') == '{self.version}'"
    if python.exists() and subprocess.run([python, "-c", check], stderr=subprocess.DEVNULL).returncode == 0:
      return python
    print(f"setting up {self.name}: {self.package} {self.version}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", ROOT / self.name], check=True)
    command = [python, "-m", "pip", "install", "--quiet", f"{self.package}=={self.version}"]
    variables = dict(os.environ)
    if self.cmake:
      command += ["--no-cache-dir", "--no-binary", self.package]
      variables |= {"CFLAGS": COMPILER_FLAGS, "CXXFLAGS": COMPILER_FLAGS, "CMAKE_ARGS": self.cmake}
    subprocess.run(command, env=variables, stdout=sys.stderr, check=True)
    return python


LLAMA_CPP = Environment("llama.cpp", "llama-cpp-python", "0.3.36", cmake="-DGGML_NATIVE=ON")
LLAMA_CPP_AVX2 = Environment(
  "llama.cpp-avx2", "llama-cpp-python", "0.3.36",
  cmake="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "
  "-DGGML_AVX512=OFF")
OPENVINO = Environment("openvino", "openvino-genai", "2026.4.1.0")
# Reads and writes model files; brings numpy.
GGUF = Environment("gguf", "gguf", "0.19.0")
TOKENIZERS = Environment("tokenizers", "tokenizers", "0.23.3")
