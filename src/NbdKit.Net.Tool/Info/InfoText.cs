using System.Globalization;
using System.Text;

namespace NbdKit.Tool.Info;

/// <summary>A server for people, in the form of nbdinfo.</summary>
internal static class InfoText
{
    public static string Of(InfoServer server)
    {
        var text = new StringBuilder("protocol: ").Append(server.Protocol)
            .Append(server.IsTls ? " with TLS" : " without TLS").Append($", using {server.Packets} packets\n");
        foreach (InfoExport export in server.Exports)
        {
            text.Append("export=\"").Append(Shown(export.Name)).Append("\":\n");
            if (!string.IsNullOrEmpty(export.Description))
            {
                text.Append("\tdescription: ").Append(Shown(export.Description)).Append('\n');
            }
            if (export.Info is { } info)
            {
                string human = InfoExport.HumanSize(info.Size);
                bool isShorter = !char.IsAsciiDigit(human[^1]);
                text.Append($"\texport-size: {info.Size}{(isShorter ? $" ({human})" : "")}\n");
            }
            text.Append("\turi: ").Append(export.Uri).Append('\n');
            Append(text, export.Info, export.Contexts);
        }
        return text.ToString();
    }

    private static void Append(StringBuilder text, NbdExportInfo? info, IReadOnlyList<string> contexts)
    {
        if (info is null)
        {
            return;
        }
        if (contexts.Count > 0)
        {
            text.Append("\tcontexts:\n");
        }
        foreach (string context in contexts)
        {
            text.Append("\t\t").Append(Shown(context)).Append('\n');
        }
        foreach ((string name, bool value) in InfoExport.Abilities(info))
        {
            text.Append($"\t{name}: {(value ? "true" : "false")}\n");
        }
        foreach ((string name, long value) in InfoExport.BlockSizes(info))
        {
            text.Append($"\t{name}: {value}\n");
        }
    }

    // What a server sends must not be able to write to a terminal what it likes.
    private static string Shown(string text)
    {
        var shown = new StringBuilder();
        foreach (Rune rune in text.EnumerateRunes())
        {
            bool hidden = Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format
                or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse;
            if (hidden)
            {
                shown.Append($"\\u{{{rune.Value:x}}}");
            }
            else
            {
                shown.Append(rune.Value is '"' or '\\' ? "\\" : "").Append(rune.ToString());
            }
        }
        return shown.ToString();
    }
}
