using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace NbdKit.Tool.Info;

/// <summary>A server for programs, in the form of nbdinfo.</summary>
internal static class InfoJson
{
    public static readonly JsonWriterOptions Options = new()
    {
        Indented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public static byte[] Of(InfoServer server)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, Options))
        {
            json.WriteStartObject();
            json.WriteString("protocol", server.Protocol);
            json.WriteBoolean("TLS", server.IsTls);
            json.WriteBoolean("structured", server.Packets != "simple");
            json.WriteBoolean("extended", server.Packets == "extended");
            json.WriteStartArray("exports");
            foreach (InfoExport export in server.Exports)
            {
                Write(json, export);
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }

    private static void Write(Utf8JsonWriter json, InfoExport export)
    {
        json.WriteStartObject();
        json.WriteString("export-name", export.Name);
        if (!string.IsNullOrEmpty(export.Description))
        {
            json.WriteString("description", export.Description);
        }
        json.WriteString("uri", export.Uri.ToString());
        if (export.Info is { } info)
        {
            if (export.Contexts.Count > 0)
            {
                json.WriteStartArray("contexts");
                foreach (string context in export.Contexts)
                {
                    json.WriteStringValue(context);
                }
                json.WriteEndArray();
            }
            foreach ((string name, bool value) in InfoExport.Abilities(info))
            {
                json.WriteBoolean(name, value);
            }
            foreach ((string name, long value) in InfoExport.BlockSizes(info))
            {
                json.WriteNumber(name, value);
            }
            json.WriteNumber("export-size", info.Size);
            json.WriteString("export-size-str", InfoExport.HumanSize(info.Size));
        }
        json.WriteEndObject();
    }
}
