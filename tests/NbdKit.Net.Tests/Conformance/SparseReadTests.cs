using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Reads whose reply has holes, and reads that go beyond the end of the export.</summary>
public sealed class SparseReadTests : WireTest
{
    private const int Size = 1 << 20;

    private static readonly ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;

    [Test, Property("Rule", "S184"), Property("Rule", "S185"), Property("Rule", "S186"), Property("Rule", "S187")]
    public async Task S184_S185_S186_S187_Holes_travel_as_holes_and_cover_the_rest_with_data(
        [Values(Support.Emulate, Support.Native)] Support support,
        [Values] bool extended,
        [Values] bool blocking,
        [Values(1, 4096)] int minimumBlock)
    {
        const int Seed = 184;
        var random = new Random(Seed);
        (byte[] data, List<Extent> extents) = Image(random, minimumBlock);
        ServerFixture server = await ServeAsync(Export(data, extents, support, blocking, minimumBlock));
        WireClient client = await server.TransmitAsync(structured: true, extended: extended);
        int holes = 0;
        for (int i = 0; i < 200; i++)
        {
            int offset = random.Next(Size / minimumBlock) * minimumBlock;
            int length = (1 + random.Next((Size - offset) / minimumBlock)) * minimumBlock;

            WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, (ulong)offset, (ulong)length);

            Assert.That(
                reply.Data.AsSpan().SequenceEqual(data.AsSpan(offset, length)), $"seed {Seed}, round {i}: {length} bytes at {offset}");
            holes += reply.Chunks.Count(chunk => chunk.Type == ChunkType.OffsetHole);
        }
        Assert.That(holes, Is.GreaterThan(100));
        if (support == Support.Emulate)
        {
            Assert.That(
                server.Plugin.Calls.Where(call => call.Op == PluginOp.Read).Where(call => call.Length >= 16_384 && IsInHole(call)),
                Is.Empty, "what is a hole is not read");
        }

        bool IsInHole(PluginCall call) => extents.Any(
            e => e.Status == Hole && e.Offset <= call.Offset && e.End >= call.Offset + call.Length);
    }

    [Test, Property("Rule", "S187"), Property("Rule", "S185")]
    public async Task S187_S185_A_read_of_a_hole_is_one_chunk_of_twelve_bytes_and_short_holes_are_sent_as_zeroes()
    {
        byte[] data = new byte[Size];
        data.AsSpan(Size / 2).Fill(7);
        data.AsSpan((Size / 2) + 8192, 2048).Clear();
        List<Extent> extents =
        [
            new(0, Size / 2, Hole), new(Size / 2, 8192, ExtentStatus.Data), new((Size / 2) + 8192, 2048, Hole),
            new((Size / 2) + 10240, (Size / 2) - 10240, ExtentStatus.Data),
        ];
        ServerFixture server = await ServeAsync(Export(data, extents, Support.Emulate));
        WireClient client = await server.TransmitAsync(structured: true);

        WireReply hole = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 1000, 100_000);
        WireReply whole = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, Size / 2, Size / 2);
        WireReply small = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, 4096);

        Assert.That(hole.Chunks.Single().Type, Is.EqualTo(ChunkType.OffsetHole));
        Assert.That(hole.Data, Is.All.Zero);
        Assert.That(whole.Chunks.Single().Type, Is.EqualTo(ChunkType.OffsetData));
        Assert.That(whole.Data, Is.EqualTo(data[(Size / 2)..]));
        Assert.That(small.Data, Is.All.Zero);
    }

    [Test, Property("Rule", "S184"), Property("Rule", "S186")]
    public async Task S184_S186_However_many_holes_a_plugin_tells_none_is_sent_as_what_was_in_the_buffer([Values] bool shifted)
    {
        const int Large = 24 << 20;
        byte[] data = new byte[Large];
        var extents = new List<Extent>();
        for (int at = 0; at < Large; at += 8192)
        {
            data.AsSpan(at, 4096).Fill((byte)(at >> 13));
            extents.Add(new Extent(at, 4096, ExtentStatus.Data));
            extents.Add(new Extent(at + 4096, 4096, Hole));
        }
        var plugin = new TestPlugin(Export(data, extents, Support.Native));
        await using NbdBackend chain = NbdBackend.Compose(plugin, shifted ? [new OffsetFilter { Offset = 8192 }] : []);
        await using NextContext disk = await chain.OpenAsync();
        int start = shifted ? 8192 : 0;
        byte[] buffer = new byte[Large - start];
        var few = new ExtentList(0, buffer.Length, maximumCount: 10);
        await disk.ReadSparseAsync(buffer, 0, few, default);
        foreach (Extent hole in few.Where(extent => extent.Status == Hole))
        {
            buffer.AsSpan((int)hole.Offset, (int)hole.Length).Clear();
        }
        Assert.That(buffer.AsSpan().SequenceEqual(data.AsSpan(start)), "what a full list does not tell is in the buffer");
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.TransmitAsync(structured: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, Large);

        Assert.That(reply.Data.AsSpan().SequenceEqual(data));
        Assert.That(reply.Chunks.Count(chunk => chunk.Type == ChunkType.OffsetHole), Is.EqualTo(extents.Count / 2));
    }

    [Test, Property("Rule", "S196"), Property("Rule", "S197")]
    public async Task S196_S197_With_DF_everything_comes_in_one_chunk_of_data([Values] bool extended)
    {
        var random = new Random(196);
        (byte[] data, List<Extent> extents) = Image(random, 1);
        ServerFixture server = await ServeAsync(Export(data, extents, Support.Emulate));
        WireClient client = await server.TransmitAsync(structured: true, extended: extended);
        foreach (int length in new[] { 1, 65_536, Size })
        {
            WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, (ulong)length, CmdFlag.Df);

            Assert.That(reply.Chunks.Single().Type, Is.EqualTo(ChunkType.OffsetData));
            Assert.That(reply.Data.AsSpan().SequenceEqual(data.AsSpan(0, length)));
        }
    }

    [Test, Property("Rule", "S184")]
    public async Task S184_A_plugin_that_does_not_know_its_extents_is_read_as_a_whole([Values] bool blocking)
    {
        TestExport export = Export(new byte[Size], [], Support.Emulate, blocking);
        export.Extents = (_, _) => throw new IOException("no idea");
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(structured: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, Size);

        Assert.That(reply.Chunks.Single().Type, Is.EqualTo(ChunkType.OffsetData));
    }

    [Test, Property("Rule", "S190"), Property("Rule", "S192"), Property("Rule", "S163")]
    public async Task S190_S192_S163_A_read_beyond_the_end_gets_what_there_is_and_where_the_end_is(
        [Values] bool extended, [Values(100, 100_000)] int inside, [Values(Support.None, Support.Emulate, Support.Native)] Support support)
    {
        var random = new Random(190);
        (byte[] data, List<Extent> extents) = Image(random, 1);
        ServerFixture server = await ServeAsync(Export(data, extents, support));
        WireClient client = await server.TransmitAsync(structured: true, extended: extended);

        WireReply reply = await client.ExpectCallAsync(WireError.Inval, Cmd.Read, (ulong)(Size - inside), (ulong)inside + 10);
        WireReply plain = await client.ExpectCallAsync(WireError.Inval, Cmd.Read, (ulong)(Size - inside), (32 << 20) + 1);
        WireReply beyond = await client.ExpectCallAsync(WireError.Inval, Cmd.Read, Size, 10);

        Assert.That(reply.Data, Is.EqualTo(data[^inside..]));
        Assert.That(reply.Chunks[^1].Type, Is.EqualTo(ChunkType.ErrorOffset));
        Assert.That(reply.Message, Is.Not.Empty);
        Assert.That(plain.Chunks.Single().Type, Is.EqualTo(ChunkType.Error));
        Assert.That(beyond.Chunks.Single().Type, Is.EqualTo(ChunkType.Error));
        await client.ExpectAliveAsync(data);
    }

    [Test, Property("Rule", "S190"), Property("Rule", "S188")]
    public async Task S190_S188_A_read_in_pieces_that_fails_has_no_content()
    {
        var random = new Random(188);
        (byte[] data, List<Extent> extents) = Image(random, 1);
        TestExport export = Export(data, extents, Support.Emulate);
        int reads = 0;
        export.Before = call => call.Op == PluginOp.Read && ++reads % 3 == 0 ? throw new IOException("bad sector") : default;
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(structured: true);
        for (int i = 0; i < 10; i++)
        {
            WireReply reply = await client.CallAsync(Cmd.Read, 0, Size);
            Assert.That(reply.Error, Is.Zero.Or.EqualTo(WireError.Io));
            Assert.That(reply.Error == 0 || reply.Chunks.Count == 1);
        }
    }

    [Test, Property("Rule", "S184")]
    public async Task S184_Nor_does_it_matter_if_a_blocking_layer_refuses_at_once()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new TestPlugin(Export(new byte[Size], [], Support.Emulate, blocking: true)), [new RefusingFilter()]);
        await using var server = new NbdServer(chain);
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        await client.StructuredAsync();
        await client.GoAsync();

        await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, Size);
    }

    private sealed class RefusingFilter : INbdFilter, INbdFilterHandle
    {
        public string Name => "refusing";

        public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        {
            await context.OpenNextAsync(cancellationToken);
            return this;
        }

        public ValueTask ExtentsAsync(
            NextContext next, long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
            => throw new NbdException(NbdError.IoError, "not now");
    }

    private static TestExport Export(
        byte[] data, List<Extent> extents, Support support, bool blocking = false, int minimumBlock = 1) => new()
        {
            Data = data,
            Configure = info => info with
            {
                CanReadSparse = support,
                IsBlocking = blocking,
                BlockSize = minimumBlock > 1 ? new BlockSize(minimumBlock, minimumBlock) : default,
            },
            Extents = (call, list) =>
            {
                foreach (Extent extent in extents.Where(e => e.End > call.Offset && e.Offset < call.Offset + call.Length))
                {
                    list.Add(extent.Offset, extent.Length, extent.Status);
                }
            },
        };

    private static (byte[] Data, List<Extent> Extents) Image(Random random, int granularity)
    {
        byte[] data = new byte[Size];
        random.NextBytes(data);
        var extents = new List<Extent>();
        bool hole = true;
        for (int at = 0; at < Size; hole = !hole)
        {
            int length = Math.Min(Size - at, (1 + random.Next(40_000)) / granularity * granularity + granularity);
            if (hole)
            {
                data.AsSpan(at, length).Clear();
            }
            extents.Add(new Extent(at, length, hole ? Hole : ExtentStatus.Data));
            at += length;
        }
        return (data, extents);
    }
}
