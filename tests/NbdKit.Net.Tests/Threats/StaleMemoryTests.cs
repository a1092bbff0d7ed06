using System.Buffers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>What pooled memory held before never reaches a client.</summary>
public sealed class StaleMemoryTests
{
    private const byte Secret = 0xa5;
    private const long Size = 8 << 20;

    [Test, Property("Threat", "N03"), Property("Threat", "P35")]
    public async Task A_plugin_that_fills_less_than_it_should_sends_zeroes_and_not_what_others_wrote(
        [Values("simple", "structured", "extended")] string form, [Values] bool blocking, [Values] bool sparse)
    {
        var plugin = new LazyPlugin
        {
            Info = new NbdExportInfo { Size = Size, CanWrite = true, IsBlocking = blocking, CanExtents = sparse },
        };
        await using var server = new NbdServer(NbdBackend.Compose(plugin));
        await server.StartAsync();
        WireClient writer = await ClientAsync(server, "simple");
        WireClient reader = await ClientAsync(server, form);
        foreach (uint length in new uint[] { 512, 4096, 30_000, 70_000, 300_000, 1 << 20 })
        {
            byte[] secret = new byte[length];
            secret.AsSpan().Fill(Secret);
            await writer.WriteDataAsync(0, secret);
            Poison((int)length);
            plugin.Throws = true;
            WireReply failed = await reader.CallAsync(Cmd.Read, 0, length);
            Assert.That(failed.Error, Is.EqualTo(WireError.Io));
            Assert.That(failed.Chunks.SelectMany(chunk => chunk.Payload), Has.None.EqualTo(Secret));
            plugin.Throws = false;
            Poison((int)length);

            byte[] data = await reader.ReadDataAsync(4096, length);

            Assert.That(data.AsSpan().IndexOf(Secret), Is.EqualTo(-1), $"{length} bytes");
            Assert.That(data.AsSpan(0, (int)length / 2).IndexOfAnyExcept(LazyPlugin.Filling), Is.EqualTo(-1));
            Assert.That(data.AsSpan((int)length / 2).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
        }
        await writer.DisposeAsync();
        await reader.DisposeAsync();
    }

    private static async Task<WireClient> ClientAsync(NbdServer server, string form)
    {
        var pipes = new PipePair();
        var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        if (form == "structured")
        {
            await client.StructuredAsync();
        }
        else if (form == "extended")
        {
            await client.ExtendedAsync();
        }
        await client.GoAsync();
        return client;
    }

    // Every array that a reply of this size may be built in.
    private static void Poison(int length)
    {
        byte[][] arrays = [.. Enumerable.Range(0, 16).Select(i => ArrayPool<byte>.Shared.Rent(length + (i % 2 == 0 ? 0 : 64)))];
        foreach (byte[] array in arrays)
        {
            array.AsSpan().Fill(Secret);
            ArrayPool<byte>.Shared.Return(array);
        }
    }
}
