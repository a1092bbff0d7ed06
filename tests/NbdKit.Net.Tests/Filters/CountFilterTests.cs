using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class CountFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task Bytes_of_requests_that_succeed_are_counted_over_all_clients()
    {
        var plugin = new RecordingPlugin(new CallRecorder());
        plugin.Info = (_, info) => info with { CanZero = Support.Emulate };
        var filter = new CountFilter();
        var log = new RecordingLog();
        NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await chain.StartAsync(log);
        foreach (string name in new[] { "one", "two" })
        {
            await using NextContext disk = await chain.OpenAsync(name);
            await disk.ReadAsync(new byte[10], 0, None);
            await disk.ReadSparseAsync(new byte[5], 0, new ExtentList(0, 5), None);
            await disk.WriteAsync(new byte[100], 0, RequestFlags.Fua, None);
            await disk.ZeroAsync(0, 1000, RequestFlags.None, None);
            await disk.TrimAsync(0, 10_000, RequestFlags.None, None);
            await disk.CacheAsync(0, 7, None);
            await disk.FlushAsync(None);
            plugin.Script.Fail("read", times: 1);
            TestData.Failure(() => disk.ReadAsync(new byte[3], 0, None).AsTask());
        }
        Assert.That(
            (filter.BytesRead, filter.BytesWritten, filter.BytesZeroed, filter.BytesTrimmed), Is.EqualTo((30L, 200L, 2000L, 20_000L)));
        await chain.DisposeAsync();
        Assert.That(log.Entries.Select(entry => entry.Text), Does.Contain("Bytes: read 30, written 200, zeroed 2000, trimmed 20000"));
    }

    [Test]
    public async Task Large_requests_that_are_lent_are_counted()
    {
        var filter = new CountFilter();
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(new MemoryPlugin { Size = 4 << 20 }, filter));
        WireClient client = await server.TransmitAsync();
        byte[] data = TestData.Random(1 << 20);
        await client.WriteDataAsync(0, data);
        Assert.That(await client.ReadDataAsync(0, 1 << 20), Is.EqualTo(data));
        Assert.That((filter.BytesRead, filter.BytesWritten), Is.EqualTo((1L << 20, 1L << 20)));
    }
}
