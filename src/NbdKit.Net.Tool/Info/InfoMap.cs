using System.Globalization;
using System.Text;
using System.Text.Json;

namespace NbdKit.Tool.Info;

/// <summary>The extents of an export in one meta context, in the form of nbdinfo.</summary>
internal static class InfoMap
{
    // So much text is kept before it is written.
    private const int Pending = 64 << 10;

    /// <summary>Writes the map, or with totals how much there is of each type.</summary>
    public static async Task WriteAsync(InfoOptions options, NbdUri uri, NbdClientOptions clientOptions, Stream output)
    {
        string context = options.Map!;
        NbdClient client = await NbdClient.ConnectAsync(uri.ToString(), clientOptions with { MetaContexts = [context] })
            .ConfigureAwait(false);
        try
        {
            if (!client.MetaContexts.Contains(context))
            {
                throw new CommandException($"the server has no meta context {context} for this export");
            }
            if (options.Totals)
            {
                await WriteTotalsAsync(client, context, options.Json, output).ConfigureAwait(false);
            }
            else if (options.Json)
            {
                await WriteJsonAsync(client, context, output).ConfigureAwait(false);
            }
            else
            {
                await WriteTextAsync(client, context, output).ConfigureAwait(false);
            }
        }
        finally
        {
            await client.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async Task WriteTextAsync(NbdClient client, string context, Stream output)
    {
        var text = new StringBuilder();
        await foreach (Extent extent in ExtentsAsync(client, context).ConfigureAwait(false))
        {
            string line = $"{extent.Offset,10}  {extent.Length,10}  {(ulong)extent.Status,3}  {Describe(context, extent.Status)}";
            text.Append(line.TrimEnd()).Append('\n');
            if (text.Length > Pending)
            {
                await output.WriteAsync(StandardText.Bytes(text.ToString())).ConfigureAwait(false);
                text.Clear();
            }
        }
        await output.WriteAsync(StandardText.Bytes(text.ToString())).ConfigureAwait(false);
    }

    private static async Task WriteJsonAsync(NbdClient client, string context, Stream output)
    {
        var json = new Utf8JsonWriter(output, InfoJson.Options);
        json.WriteStartArray();
        await foreach (Extent extent in ExtentsAsync(client, context).ConfigureAwait(false))
        {
            json.WriteStartObject();
            json.WriteNumber("offset", extent.Offset);
            json.WriteNumber("length", extent.Length);
            WriteType(json, context, extent.Status);
            json.WriteEndObject();
            if (json.BytesPending > Pending)
            {
                await json.FlushAsync().ConfigureAwait(false);
            }
        }
        await EndAsync(json, output).ConfigureAwait(false);
    }

    private static async Task WriteTotalsAsync(NbdClient client, string context, bool asJson, Stream output)
    {
        var totals = new SortedDictionary<ulong, long>();
        await foreach (Extent extent in ExtentsAsync(client, context).ConfigureAwait(false))
        {
            totals[(ulong)extent.Status] = totals.GetValueOrDefault((ulong)extent.Status) + extent.Length;
        }
        if (!asJson)
        {
            string lines = string.Concat(totals.Select(t => string.Create(
                CultureInfo.InvariantCulture,
                $"{t.Value,10} {Percent(t.Value),5:F1}% {t.Key,3} {Describe(context, (ExtentStatus)t.Key)}").TrimEnd() + "\n"));
            await output.WriteAsync(StandardText.Bytes(lines)).ConfigureAwait(false);
            return;
        }
        var json = new Utf8JsonWriter(output, InfoJson.Options);
        json.WriteStartArray();
        foreach ((ulong type, long size) in totals)
        {
            json.WriteStartObject();
            json.WriteNumber("size", size);
            json.WriteNumber("percent", Math.Round(Percent(size), 4));
            WriteType(json, context, (ExtentStatus)type);
            json.WriteEndObject();
        }
        await EndAsync(json, output).ConfigureAwait(false);

        double Percent(long size) => 100.0 * size / client.Info.Size;
    }

    private static void WriteType(Utf8JsonWriter json, string context, ExtentStatus status)
    {
        json.WriteNumber("type", (ulong)status);
        if (Describe(context, status) is { Length: > 0 } description)
        {
            json.WriteString("description", description);
        }
    }

    private static async Task EndAsync(Utf8JsonWriter json, Stream output)
    {
        json.WriteEndArray();
        await json.DisposeAsync().ConfigureAwait(false);
        await output.WriteAsync("\n"u8.ToArray()).ConfigureAwait(false);
    }

    /// <summary>All extents in order, neighbours of one type as one.</summary>
    private static async IAsyncEnumerable<Extent> ExtentsAsync(NbdClient client, string context)
    {
        long size = client.Info.Size;
        Extent? last = null;
        for (long offset = 0; offset < size;)
        {
            var list = new ExtentList(offset, size, context);
            await client.ExtentsAsync(offset, size - offset, RequestFlags.None, list).ConfigureAwait(false);
            foreach (Extent extent in list)
            {
                if (last is { } before && before.Status != extent.Status)
                {
                    yield return before;
                    last = null;
                }
                last = last is { } same ? same with { Length = same.Length + extent.Length } : extent;
            }
            offset = list.Covered;
        }
        if (last is { } rest)
        {
            yield return rest;
        }
    }

    private static string Describe(string context, ExtentStatus status)
    {
        ulong type = (ulong)status;
        if (context == ExtentList.BaseAllocation)
        {
            return type switch { 0 => "data", 1 => "hole", 2 => "zero", 3 => "hole,zero", _ => "" };
        }
        if (context.StartsWith("qemu:dirty-bitmap:", StringComparison.Ordinal))
        {
            return type switch { 0 => "clean", 1 => "dirty", _ => "" };
        }
        return context == "qemu:allocation-depth"
            ? type switch { 0 => "unallocated", 1 => "local", _ => $"backing depth {type}" }
            : "";
    }
}
