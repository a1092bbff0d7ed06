using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>What a client sends in the transmission phase, and what it must not send.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientRequestTests
{
    private const ushort Nothing = TxFlag.HasFlags;

    [Test, Property("Rule", "C041")]
    public async Task C041_What_was_not_offered_is_not_sent()
    {
        await using var server = new TransmissionServer(new TransmissionExport { Flags = Nothing });
        NbdClient client = server.Client;

        Refused(client.FlushAsync());
        Refused(client.TrimAsync(0, 1));
        Refused(client.ZeroAsync(0, 1));
        Refused(client.CacheAsync(0, 1));
        Refused(client.WriteAsync(new byte[1], 0, RequestFlags.Fua));
        Refused(client.ReadSparseAsync(new byte[1], 0, _ => { }, dontFragment: true));
        Refused(client.ExtentsAsync(0, 1, RequestFlags.None, new ExtentList(0, 1)));
        Assert.That(server.HasInput(), Is.False);
    }

    [Test, Property("Rule", "C041")]
    public async Task C041_Flags_are_sent_only_where_they_belong_and_were_offered()
    {
        await using var all = new TransmissionServer();
        await using var noFua = new TransmissionServer(
            new TransmissionExport { Flags = Nothing | TxFlag.SendTrim | TxFlag.SendWriteZeroes | TxFlag.SendFlush });

        Refused(noFua.Client.TrimAsync(0, 1, RequestFlags.Fua));
        Refused(noFua.Client.ZeroAsync(0, 1, RequestFlags.Fua));
        Refused(noFua.Client.ZeroAsync(0, 1, RequestFlags.FastZero));
        Refused(all.Client.WriteAsync(new byte[1], 0, RequestFlags.MayTrim));
        Refused(all.Client.TrimAsync(0, 1, RequestFlags.FastZero));
        Refused(all.Client.ZeroAsync(0, 1, RequestFlags.RequestOne));
        Refused(all.Client.ExtentsAsync(0, 1, RequestFlags.Fua, new ExtentList(0, 1)));
        Assert.That(all.HasInput() || noFua.HasInput(), Is.False);
    }

    [Test, Property("Rule", "C041")]
    public async Task C041_A_read_only_export_is_not_changed()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Flags = (ushort)(new TransmissionExport().Flags | TxFlag.ReadOnly) });

        foreach (ValueTask task in (ValueTask[])
            [server.Client.WriteAsync(new byte[1], 0), server.Client.TrimAsync(0, 1), server.Client.ZeroAsync(0, 1)])
        {
            Assert.That(
                Assert.ThrowsAsync<NbdException>(() => task.AsTask())!.Error, Is.EqualTo(NbdError.PermissionDenied));
        }
        Assert.That(server.Client.Info.CanWrite, Is.False);
        Assert.That(server.HasInput(), Is.False);
    }

    [Test, Property("Rule", "C042")]
    public async Task C042_Unknown_transmission_flags_are_ignored()
    {
        await using var server = new TransmissionServer(new TransmissionExport { Flags = 0xffff & ~TxFlag.ReadOnly });

        Task flushing = server.Client.FlushAsync().AsTask();
        await server.SucceedAsync(await server.NextAsync());
        await flushing.Soon();

        Assert.That(server.Client.Info, Has.Property("CanWrite").True.And.Property("CanMultiConn").True);
    }

    [Test, Property("Rule", "C043")]
    public async Task C043_Cookies_are_unique_among_10_000_requests_in_flight()
    {
        const int Count = 10_000;
        await using var server = new TransmissionServer(
            new TransmissionExport { Options = new NbdClientOptions { MaxRequestsInFlight = Count } });
        var random = new Random(5);
        for (int round = 0; round < 2; round++)
        {
            byte[][] buffers = [.. Enumerable.Range(0, Count).Select(_ => new byte[4])];
            Task[] reading = [.. buffers.Select((b, i) => server.Client.ReadAsync(b, 4 * i).AsTask())];
            WireRequest[] requests = [.. await server.NextAsync(Count)];
            Assert.That(requests.Select(r => r.Cookie).Distinct().Count(), Is.EqualTo(Count));
            random.Shuffle(requests);
            foreach (WireRequest request in requests)
            {
                await server.SucceedAsync(request, BitConverter.GetBytes((int)request.Offset));
            }
            await Task.WhenAll(reading).Soon();
            Assert.That(buffers.Select(b => BitConverter.ToInt32(b)), Is.EqualTo(Enumerable.Range(0, Count).Select(i => 4 * i)));
        }
    }

    [Test, Property("Rule", "C044")]
    public async Task C044_Ranges_outside_of_the_export_or_off_its_blocks_are_not_sent()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Size = 1 << 20, BlockSize = new BlockSize(512, 4096, 8192), Contexts = TransmissionExport.WithContext.Contexts });
        NbdClient client = server.Client;
        (long Offset, int Length)[] wrong =
            [(1 << 20, 512), ((1 << 20) - 512, 1024), (long.MaxValue - 511, 512), (1, 512), (512, 1), (0, 513), (256, 256)];

        foreach ((long offset, int length) in wrong)
        {
            Refused(client.ReadAsync(new byte[length], offset));
            Refused(client.WriteAsync(new byte[length], offset));
            Refused(client.TrimAsync(offset, length));
            Refused(client.ZeroAsync(offset, length));
            Refused(client.CacheAsync(offset, length));
            Refused(client.ExtentsAsync(offset, length, RequestFlags.None, new ExtentList(offset, long.MaxValue)));
        }
        Refused(client.TrimAsync(512, long.MaxValue));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = client.ReadAsync(new byte[512], -512));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = client.TrimAsync(0, -512));
        Assert.That(server.HasInput(), Is.False);
    }

    [Test, Property("Rule", "C044")]
    public async Task C044_Large_reads_and_writes_are_split_where_the_server_wants_it()
    {
        await using var server = new TransmissionServer(new TransmissionExport { BlockSize = new BlockSize(512, 4096, 10_240) });
        byte[] content = TestData.Random(51_200, 3);
        byte[] buffer = new byte[content.Length];
        Task reading = server.Client.ReadAsync(buffer, 512).AsTask();
        List<WireRequest> reads = await server.NextAsync(5);
        reads.Reverse();
        foreach (WireRequest request in reads)
        {
            await server.SucceedAsync(request, content[((int)request.Offset - 512)..((int)request.Offset - 512 + (int)request.Length)]);
        }
        await reading.Soon();

        Task writing = server.Client.WriteAsync(content, 1024, RequestFlags.Fua).AsTask();
        List<WireRequest> writes = await server.NextAsync(5);
        foreach (WireRequest request in writes)
        {
            await server.SucceedAsync(request);
        }
        await writing.Soon();

        Assert.That(buffer, Is.EqualTo(content));
        Assert.That(reads.Concat(writes).Select(r => r.Length), Is.All.EqualTo(10_240));
        Assert.That(writes.Select(r => r.Flags), Is.All.EqualTo(CmdFlag.Fua));
        Assert.That(writes.SelectMany(r => r.Data), Is.EqualTo(content));
    }

    [Test, Property("Rule", "C044")]
    public async Task C044_Without_a_word_from_the_server_32_MiB_are_the_most()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Size = 1L << 40, Options = new NbdClientOptions { MaxPayload = 64 << 20 } });
        Task reading = server.Client.ReadAsync(new byte[(32 << 20) + 1], 0).AsTask();

        List<WireRequest> requests = await server.NextAsync(2);

        Assert.That(requests.Select(r => r.Length), Is.EqualTo((ulong[])[32 << 20, 1]));
        await server.CloseAsync();
        Assert.ThrowsAsync<NbdClientException>(() => reading.Soon());
    }

    [Test, Property("Rule", "C045")]
    public async Task C045_Requests_of_no_bytes_are_done_at_once()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext);
        NbdClient client = server.Client;
        ValueTask[] tasks =
        [
            client.ReadAsync(default, 5), client.WriteAsync(default, 1 << 20), client.TrimAsync(5, 0), client.ZeroAsync(5, 0),
            client.CacheAsync(5, 0), client.ExtentsAsync(5, 0, RequestFlags.None, new ExtentList(5, 6)),
            client.ReadSparseAsync(default, 5, _ => { }),
        ];

        Assert.That(tasks.Select(t => t.IsCompletedSuccessfully), Is.All.True);
        Assert.That(server.HasInput(), Is.False);
    }

    [Test, Property("Rule", "C046")]
    public async Task C046_A_flush_has_no_range([Values] bool extended)
    {
        await using var server = new TransmissionServer(extended ? TransmissionExport.WithExtended : new TransmissionExport());
        Task flushing = server.Client.FlushAsync().AsTask();
        WireRequest request = await server.NextAsync();
        await server.SucceedAsync(request);
        await flushing.Soon();
        Task leaving = server.Client.DisconnectAsync();
        WireRequest disconnect = await server.NextAsync();
        await server.CloseAsync();
        await leaving.Soon();

        Assert.That((request.Type, request.Flags, request.Offset, request.Length), Is.EqualTo((Cmd.Flush, (ushort)0, 0UL, 0UL)));
        Assert.That(
            (disconnect.Type, disconnect.Flags, disconnect.Offset, disconnect.Length), Is.EqualTo((Cmd.Disc, (ushort)0, 0UL, 0UL)));
    }

    [Test]
    public async Task Flags_of_a_request_become_those_of_the_wire()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext);
        NbdClient client = server.Client;
        (ValueTask Task, ushort Type, int Flags)[] cases =
        [
            (client.ZeroAsync(0, 5), Cmd.WriteZeroes, CmdFlag.NoHole),
            (client.ZeroAsync(0, 5, RequestFlags.MayTrim), Cmd.WriteZeroes, 0),
            (client.ZeroAsync(0, 5, RequestFlags.MayTrim | RequestFlags.FastZero | RequestFlags.Fua), Cmd.WriteZeroes, CmdFlag.FastZero | CmdFlag.Fua),
            (client.TrimAsync(0, 5, RequestFlags.Fua), Cmd.Trim, CmdFlag.Fua),
            (client.WriteAsync(new byte[5], 0, RequestFlags.Fua), Cmd.Write, CmdFlag.Fua),
            (client.CacheAsync(0, 5), Cmd.Cache, 0),
            (client.ReadAsync(new byte[5], 0), Cmd.Read, 0),
            (client.ReadSparseAsync(new byte[5], 0, _ => { }, dontFragment: true), Cmd.Read, CmdFlag.Df),
            (client.ExtentsAsync(0, 5, RequestFlags.RequestOne, new ExtentList(0, 5)), Cmd.BlockStatus, CmdFlag.ReqOne),
        ];

        foreach ((ValueTask task, ushort type, int flags) in cases)
        {
            WireRequest request = await server.NextAsync();
            Assert.That((request.Type, (int)request.Flags, request.Length), Is.EqualTo((type, flags, 5UL)));
            await server.SendAsync(type == Cmd.BlockStatus ? server.Status(request, 7, (5, 0)) : server.Success(request, type == Cmd.Read ? new byte[5] : []));
            await task.Soon();
        }
    }

    [Test, Property("Rule", "C051"), Property("Rule", "C052")]
    public async Task C051_C052_An_unknown_error_number_is_EINVAL_and_the_connection_goes_on(
        [Values(7777u, 2u, uint.MaxValue)] uint number, [Values] bool structured)
    {
        await using var server = new TransmissionServer(structured ? new TransmissionExport() : TransmissionExport.Simple);
        for (int i = 0; i < 3; i++)
        {
            Task flushing = server.Client.FlushAsync().AsTask();
            await server.FailAsync(await server.NextAsync(), number);
            Assert.That(Assert.ThrowsAsync<NbdException>(() => flushing.Soon())!.Error, Is.EqualTo(NbdError.InvalidArgument));
        }
        Assert.That(server.Client.IsConnected);
    }

    [Test, Property("Rule", "C052")]
    public async Task C052_Every_error_fails_its_request_alone([ValueSource(typeof(WireError), nameof(WireError.Legal))] uint number)
    {
        await using var server = new TransmissionServer();
        Task reading = server.Client.ReadAsync(new byte[5], 0).AsTask();
        Task other = server.Client.ReadAsync(new byte[5], 0).AsTask();
        List<WireRequest> requests = await server.NextAsync(2);
        await server.FailAsync(requests[0], number);
        await server.SucceedAsync(requests[1], 1, 2, 3, 4, 5);

        Assert.That((uint)Assert.ThrowsAsync<NbdException>(() => reading.Soon())!.Error, Is.EqualTo(number));
        await other.Soon();
    }

    [Test, Property("Rule", "C084")]
    public async Task C084_With_extended_headers_a_write_says_that_it_has_a_payload_and_lengths_have_64_bits()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithExtended with { Size = long.MaxValue });
        NbdClient client = server.Client;
        const long Huge = 1L << 40;
        (ValueTask Task, ushort Type, int Flags, ulong Length)[] cases =
        [
            (client.WriteAsync(new byte[7], 9), Cmd.Write, CmdFlag.PayloadLength, 7),
            (client.WriteAsync(new byte[100_000], 9, RequestFlags.Fua), Cmd.Write, CmdFlag.PayloadLength | CmdFlag.Fua, 100_000),
            (client.TrimAsync(9, Huge), Cmd.Trim, 0, (ulong)Huge),
            (client.ZeroAsync(9, Huge, RequestFlags.MayTrim), Cmd.WriteZeroes, 0, (ulong)Huge),
            (client.CacheAsync(9, Huge), Cmd.Cache, 0, (ulong)Huge),
            (client.ExtentsAsync(9, Huge, RequestFlags.None, new ExtentList(9, long.MaxValue)), Cmd.BlockStatus, 0, (ulong)Huge),
            (client.ReadAsync(new byte[7], 9), Cmd.Read, 0, 7),
        ];

        foreach ((ValueTask task, ushort type, int flags, ulong length) in cases)
        {
            WireRequest request = await server.NextAsync();
            Assert.That((request.Extended, request.Type, (int)request.Flags, request.Offset, request.Length), Is.EqualTo((true, type, flags, 9UL, length)));
            await server.SendAsync(type == Cmd.BlockStatus
                ? server.Status(request, 7, (length, 3))
                : server.Success(request, type == Cmd.Read ? new byte[7] : []));
            await task.Soon();
        }
    }

    [Test]
    public async Task Without_extended_headers_long_ranges_are_split()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext with { Size = 1L << 40 });
        const ulong Piece = 0xffff_0000;
        Task trimming = server.Client.TrimAsync(512, 10L << 30).AsTask();
        for (ulong done = 0; done < 10UL << 30; done += Piece)
        {
            WireRequest request = await server.NextAsync();
            Assert.That(
                (request.Type, request.Offset, request.Length), Is.EqualTo((Cmd.Trim, 512 + done, Math.Min(Piece, (10UL << 30) - done))));
            await server.SucceedAsync(request);
        }
        await trimming.Soon();
    }

    [Test, Property("Rule", "C089")]
    public async Task C089_An_export_of_no_bytes()
    {
        await using var server = new TransmissionServer(new TransmissionExport { Size = 0 });
        await server.Client.ReadAsync(default, 0);
        await server.Client.WriteAsync(default, 0);
        await server.Client.TrimAsync(0, 0);
        Refused(server.Client.ReadAsync(new byte[1], 0));
        Task flushing = server.Client.FlushAsync().AsTask();
        await server.SucceedAsync(await server.NextAsync());
        await flushing.Soon();
        Assert.That(server.Client.Info.Size, Is.Zero);
    }

    [Test]
    public async Task Without_checks_anything_is_sent()
    {
        await using var server = new TransmissionServer(new TransmissionExport
        {
            Size = 4096,
            Flags = Nothing | TxFlag.ReadOnly,
            BlockSize = new BlockSize(512, 4096, 4096),
            Options = new NbdClientOptions { Strictness = NbdStrictness.None },
        });
        NbdClient client = server.Client;
        (ValueTask Task, ushort Type, int Flags, ulong Offset, ulong Length)[] cases =
        [
            (client.FlushAsync(), Cmd.Flush, 0, 0, 0),
            (client.WriteAsync(new byte[5], 1, RequestFlags.Fua), Cmd.Write, CmdFlag.Fua, 1, 5),
            (client.TrimAsync(1 << 30, 3), Cmd.Trim, 0, 1 << 30, 3),
            (client.TrimAsync(0, 0), Cmd.Trim, 0, 0, 0),
            (client.ZeroAsync(0, 5, RequestFlags.FastZero), Cmd.WriteZeroes, CmdFlag.FastZero | CmdFlag.NoHole, 0, 5),
            (client.CacheAsync(7, 3), Cmd.Cache, 0, 7, 3),
            (client.ReadAsync(new byte[9000], 3), Cmd.Read, 0, 3, 9000),
            (client.ReadAsync(default, 3), Cmd.Read, 0, 3, 0),
            (client.WriteAsync(default, 3), Cmd.Write, 0, 3, 0),
        ];

        foreach ((ValueTask task, ushort type, int flags, ulong offset, ulong length) in cases)
        {
            WireRequest request = await server.NextAsync();
            Assert.That(
                (request.Type, (int)request.Flags, request.Offset, request.Length), Is.EqualTo((type, flags, offset, length)));
            await server.SucceedAsync(request, type == Cmd.Read ? new byte[length] : []);
            await task.Soon();
        }
    }

    [Test]
    public async Task Asking_for_the_result_too_early_or_twice_takes_nothing_from_other_requests()
    {
        await using var server = new TransmissionServer();
        byte[] buffer = new byte[4];
        ValueTask early = server.Client.ReadAsync(buffer, 0);
        Assert.Throws<InvalidOperationException>(() => early.GetAwaiter().GetResult());
        WireRequest first = await server.NextAsync();
        Task second = server.Client.ReadAsync(new byte[4], 512).AsTask();
        WireRequest other = await server.NextAsync();

        await server.SucceedAsync(first, [1, 2, 3, 4]);
        await early.AsTask().Soon();
        Assert.That(second.IsCompleted, Is.False);
        await server.SucceedAsync(other, [5, 6, 7, 8]);

        await second.Soon();
        Assert.That(buffer, Is.EqualTo(new byte[] { 1, 2, 3, 4 }));
    }

    [Test]
    public async Task A_sparse_read_tells_its_parts_in_order()
    {
        await using var server = new TransmissionServer();
        byte[] buffer = [.. Enumerable.Repeat((byte)0xa5, 100)];
        var parts = new List<NbdReadChunk>();
        Task reading = server.Client.ReadSparseAsync(buffer, 1000, parts.Add).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(
            [.. server.Hole(request, 1010, 80, done: false), .. server.Data(request, 1090, new byte[10], done: false), .. server.Data(request, 1000, new byte[10])]);
        await reading.Soon();

        Assert.That(parts, Is.EqualTo((NbdReadChunk[])
            [new(1000, 10, IsHole: false), new(1010, 80, IsHole: true), new(1090, 10, IsHole: false)]));
        Assert.That(buffer[..10].Concat(buffer[90..]), Is.All.Zero);
        Assert.That(buffer[10..90], Is.All.EqualTo(0xa5), "holes are left as they are");
    }

    private static void Refused(ValueTask request) => Assert.ThrowsAsync<NbdException>(() => request.AsTask().Soon());
}
