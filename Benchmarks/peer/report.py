"""The Markdown table of a comparison."""

IK = "ik_llama.cpp (scaled)"
PEERS = ["llama.cpp", "OpenVINO GenAI"]
# Others use the machine more than this: the sample is disturbed. Waiting threads spin, so one busy core can cost an
# engine a factor of ten.
DISTURBED = 0.05


def number(value):
  return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def cell(figure):
  if figure is None:
    return "–"
  text = number(figure["median"])
  if figure.get("scaled"):
    return text
  disturbed = " †" if figure["others"] > DISTURBED else ""
  return f"{text} ({number(figure['min'])}–{number(figure['max'])}){disturbed}"


def ratio(row, column):
  return f"{row['ratios'][column]:.2f}" if column in row["ratios"] else "–"


def verdict(row):
  parts = [
    f"{target['target']}: {'yes' if target['reached'] else 'no'} ({number(target['found'])})"
    for target in row["targets"]]
  return "; ".join(parts) or "–"


def conditions(result):
  """The lines above the table."""
  found = result["conditions"]
  quick = "A quick look, one sample each: no measurement. " if found["quick"] else ""
  versions = sorted({
    f"{column}: {figure['about']['version']}" for row in result["rows"] for column, figure in row["engines"].items()
    if "version" in figure.get("about", {})})
  return (
    f"{quick}{found['processor']}, {found['processors']} processors ({', '.join(found['isa'])}), Linux "
    f"{found['kernel']}; {found['threads']} threads; medians of {found['repeat']} (min–max); Kindred at "
    f"{found['kindred']}. {'; '.join(versions)}.")


def notes(result):
  """The lines below the table."""
  lines = [
    f"{IK}: not measured here, but its figure on another machine (2 cores of Zen 5) times llama.cpp's in this run "
    "over llama.cpp's there. Best: of all peers, that one included. In s and MB less is better."]
  settings = {}
  for row in result["rows"]:
    for column, figure in row["engines"].items():
      if figure.get("settings"):
        text = ", ".join(f"{name} {value}" for name, value in figure["settings"].items())
        settings.setdefault(f"{column} with {text}", []).append(row["row"])
  if settings:
    of_rows = [f"{text} ({', '.join(names)})" for text, names in sorted(settings.items())]
    lines.append(f"Fastest settings (for load and memory, those of prefill): {'; '.join(of_rows)}.")
  worst = max(
    (figure["others"] for row in result["rows"] for figure in row["engines"].values() if "others" in figure),
    default=0)
  if worst > DISTURBED:
    lines.append(
      f"† Disturbed: other programs took more than {DISTURBED:.0%} of the processors during a sample, at worst "
      f"{worst:.0%}. These figures mean nothing.")
  failures = {f"{column}: {text}" for row in result["rows"] for column, text in row["failures"].items()}
  return "\n\n".join(lines + sorted(failures))


def markdown(result):
  header = ["path", "unit", "Kindred", *PEERS, IK, *(f"÷ {peer}" for peer in PEERS), "targets"]
  lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
  for row in result["rows"]:
    figures = [cell(row["engines"].get(column)) for column in ["Kindred", *PEERS, IK]]
    cells = [row["title"], row["unit"], *figures, *(ratio(row, peer) for peer in PEERS), verdict(row)]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n\n".join([conditions(result), "\n".join(lines), notes(result)])
