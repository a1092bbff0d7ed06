using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Emulations of ranges that are larger than one call should be, up to the end of the largest disk.</summary>
public sealed class NextContextChunkTests
{
    private const int Chunk = 1 << 20;
    private static readonly CancellationToken None = CancellationToken.None;

    [Test, Property("Rule", "E4"), Property("Rule", "E5")]
    public async Task E4_E5_Zeroes_are_written_in_chunks_that_advance_offset_and_length()
    {
        var plugin = new EndlessPlugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(7, (3L * Chunk) + 5, RequestFlags.Fua, None);
        Assert.That(plugin.Calls, Is.EqualTo(new[]
        {
            ("write", 7L, Chunk, RequestFlags.None),
            ("write", 7L + Chunk, Chunk, RequestFlags.None),
            ("write", 7L + (2 * Chunk), Chunk, RequestFlags.None),
            ("write", 7L + (3 * Chunk), 5L, RequestFlags.None),
            ("flush", 0L, 0L, RequestFlags.None),
        }));
        Assert.That(plugin.WritesOfData, Is.Zero);
    }

    [Test, Property("Rule", "E5")]
    public async Task E5_Native_FUA_goes_on_every_chunk()
    {
        var plugin = new EndlessPlugin { Info = new() { Size = long.MaxValue, CanWrite = true, CanFua = Support.Native } };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, Chunk + 1, RequestFlags.Fua | RequestFlags.MayTrim, None);
        Assert.That(plugin.Calls, Is.EqualTo(new[]
        {
            ("write", 0L, Chunk, RequestFlags.Fua), ("write", (long)Chunk, 1L, RequestFlags.Fua),
        }));
    }

    [TestCase(512, 65_536, 65_536)]
    [TestCase(4096, 32 << 20, Chunk)]
    [TestCase(1, BlockSize.Unlimited, Chunk)]
    public async Task Chunks_respect_the_maximum_block_size(int minimum, long maximum, int expected)
    {
        var plugin = new EndlessPlugin
        {
            Info = new()
            {
                Size = 1L << 40,
                CanWrite = true,
                CanCache = Support.Emulate,
                BlockSize = new BlockSize(minimum, Math.Max(512, minimum), maximum),
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 2L * Chunk, RequestFlags.None, None);
        await disk.CacheAsync(0, 2L * Chunk, None);
        Assert.That(plugin.Calls.Select(call => call.Length).Distinct(), Is.EqualTo(new[] { (long)expected }));
        Assert.That(plugin.Calls.Sum(call => call.Length), Is.EqualTo(4L * Chunk));
    }

    [Test]
    public async Task The_last_bytes_of_the_largest_disk_can_be_zeroed_and_cached()
    {
        var plugin = new EndlessPlugin
        {
            Info = new() { Size = long.MaxValue, CanWrite = true, CanCache = Support.Emulate },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        long start = long.MaxValue - Chunk - 1;
        await disk.ZeroAsync(start, Chunk + 1, RequestFlags.None, None);
        await disk.CacheAsync(start, Chunk + 1, None);
        Assert.That(plugin.Calls, Is.EqualTo(new[]
        {
            ("write", start, (long)Chunk, RequestFlags.None), ("write", start + Chunk, 1L, RequestFlags.None),
            ("read", start, (long)Chunk, RequestFlags.None), ("read", start + Chunk, 1L, RequestFlags.None),
        }));
        Assert.That(
            async () => await disk.ZeroAsync(start, Chunk + 2, RequestFlags.None, None),
            Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task A_cancelled_zero_by_writing_stops_between_two_chunks()
    {
        var calls = new CallRecorder();
        using var cancel = new CancellationTokenSource();
        var plugin = new RecordingPlugin(calls)
        {
            Info = (_, info) => info with { CanZero = Support.Emulate, BlockSize = new BlockSize(1, 512, 512) },
        };
        plugin.Script.OnCall = async (call, token) =>
        {
            if (call.Callback == "write")
            {
                await cancel.CancelAsync();
                token.ThrowIfCancellationRequested();
            }
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            async () => await disk.ZeroAsync(0, 4096, RequestFlags.None, cancel.Token),
            Throws.InstanceOf<OperationCanceledException>());
        Assert.That(calls.Count("plugin", "write") + calls.Calls.Count(c => c is { Callback: "write", Failed: true }), Is.EqualTo(2));
    }

    [Test, Property("Rule", "E7"), Property("Rule", "E10")]
    public async Task E7_E10_A_plugin_that_promises_more_than_it_has_fails_with_the_error_of_what_is_missing()
    {
        await using NbdBackend chain = NbdBackend.Compose(new BoastfulPlugin());
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(0, 10, None);
        Fails(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, None), NbdError.PermissionDenied);
        Fails(async () => await disk.FlushAsync(None), NbdError.InvalidArgument);
        Fails(async () => await disk.TrimAsync(0, 1, RequestFlags.None, None), NbdError.InvalidArgument);
        Fails(async () => await disk.ExtentsAsync(0, 1, RequestFlags.None, new ExtentList(0, 1), None), NbdError.InvalidArgument);
        Fails(async () => await disk.ZeroAsync(0, 1, RequestFlags.FastZero, None), NbdError.NotSupported);
        Fails(async () => await disk.ZeroAsync(0, 1, RequestFlags.None, None), NbdError.PermissionDenied);

        void Fails(Func<Task> call, NbdError error) => Assert.That(
            call, Throws.InstanceOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(error));
    }

    [Test, Property("Rule", "E18")]
    public async Task E18_A_flush_does_not_wait_for_calls_in_flight()
    {
        var chain = new RecordedChain("filter");
        var gate = new Gate();
        chain.Plugin.Script.OnCall = (call, _) => call.Callback == "write" ? gate.PassAsync(None) : default;
        NextContext disk = await chain.Backend.OpenAsync("x");
        Task writing = disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask();
        await gate.ArrivedAsync();
        await disk.FlushAsync(None).Soon();
        Assert.That(writing.IsCompleted, Is.False);
        gate.Open();
        await writing.Soon();
        await disk.DisposeAsync();
        await chain.Backend.DisposeAsync();
    }

    [Test]
    public async Task Full_extents_ask_until_the_range_is_covered()
    {
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls)
        {
            Extents = (offset, _, list) => list.Add(offset, 10, offset % 20 == 0 ? ExtentStatus.Hole : ExtentStatus.Data),
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync("x");
        ExtentList list = await disk.ExtentsFullAsync(20, 35, ExtentList.BaseAllocation, None);
        Assert.That(list, Is.EqualTo(new[]
        {
            new Extent(20, 10, ExtentStatus.Hole), new Extent(30, 10, ExtentStatus.Data),
            new Extent(40, 10, ExtentStatus.Hole), new Extent(50, 5, ExtentStatus.Data),
        }));
        Assert.That(calls.Count("plugin", "extents"), Is.EqualTo(4));
    }

    /// <summary>Says that it can do everything natively, and has written only what must be written.</summary>
    private sealed class BoastfulPlugin : INbdPlugin, INbdPluginHandle
    {
        public string Name => "boastful";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
        {
            Size = 512,
            CanWrite = true,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
            CanCache = Support.Native,
            CanExtents = true,
        });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken) => default;
    }
}
