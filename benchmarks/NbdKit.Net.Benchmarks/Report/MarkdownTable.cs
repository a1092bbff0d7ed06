using System.Text;

namespace NbdKit.Benchmarks.Report;

/// <summary>A table that reads well as text too: the first column to the left, figures to the right.</summary>
internal sealed class MarkdownTable(params string[] headers)
{
    private readonly List<string[]> _rows = [headers];

    public void Add(params string[] cells) => _rows.Add(cells);

    public override string ToString()
    {
        int[] widths = [.. Enumerable.Range(0, headers.Length).Select(i => Math.Max(4, _rows.Max(row => row[i].Length)))];
        var text = new StringBuilder();
        for (int row = 0; row < _rows.Count; row++)
        {
            AddRow(text, _rows[row], widths);
            if (row == 0)
            {
                AddRow(text, [.. widths.Select((width, i) => i == 0 ? new string('-', width) : new string('-', width - 1) + ":")], widths);
            }
        }
        return text.ToString();
    }

    private static void AddRow(StringBuilder text, string[] cells, int[] widths)
    {
        for (int i = 0; i < cells.Length; i++)
        {
            text.Append("| ").Append(i == 0 ? cells[i].PadRight(widths[i]) : cells[i].PadLeft(widths[i])).Append(' ');
        }
        text.Append("|\n");
    }
}
