using System.Buffers.Binary;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>What a client takes for the answer to a read, and what not ("Structured reply types").</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientReadReplyTests
{
    private const ulong At = ClientViolation.Offset;
    private const int Length = ClientViolation.Length;

    private static readonly byte[] Content = TestData.Random(Length, 11);

    [Test, Property("Rule", "C055")]
    [Property("Threat", "libnbd-6f238ad")]
    public Task C055_A_message_that_is_longer_than_its_error_chunk(
        [Values(0x8001, 0x8002, 0x8077)] int type, [Values] bool extended)
        => ClientViolation.CheckReadAsync(
            Export(extended),
            (server, request) => server.Chunk(request, (ushort)type, new WireBytes().U32(5).U16(65_535).ToArray()));

    [TestCase(0)]
    [TestCase(5)]
    [Property("Rule", "C055")]
    public Task C055_An_error_chunk_that_is_too_short(int length)
        => ClientViolation.CheckReadAsync(
            new TransmissionExport(), (server, request) => server.Chunk(request, ChunkType.Error, new byte[length]));

    [Test, Property("Rule", "C055")]
    public async Task C055_A_message_of_any_size_that_fits_is_told_without_control_characters()
    {
        await using var server = new TransmissionServer();
        Task reading = server.Client.ReadAsync(new byte[Length], (long)At).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Chunk(request, ChunkType.Error, new WireBytes()
            .U32(28).U16(65_535).Raw("\u001b[31mfull"u8).Raw([.. Enumerable.Repeat((byte)'x', 65_526)]).ToArray()));

        NbdException failure = Assert.ThrowsAsync<NbdException>(() => reading.Soon())!;

        Assert.That(failure.Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(failure.Message, Does.Contain("[31mfull").And.Length.LessThan(5000));
        Assert.That(failure.Message.Any(char.IsControl), Is.False);
        await ServesAsync(server);
    }

    [TestCase(3)]
    [TestCase(77)]
    [TestCase(0x7fff)]
    [Property("Rule", "C056")]
    public Task C056_A_chunk_of_an_unknown_type_that_is_no_error(int type)
        => ClientViolation.CheckReadAsync(
            new TransmissionExport(), (server, request) => server.Chunk(request, (ushort)type, new byte[4]));

    [Test, Property("Rule", "C057")]
    public async Task C057_An_error_chunk_of_an_unknown_type_fails_its_request_only([Values] bool extended)
    {
        await using var server = new TransmissionServer(Export(extended));
        Task reading = server.Client.ReadAsync(new byte[Length], (long)At).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Chunk(
            request, 0x8077, new WireBytes().U32(12).U16(3).Raw("abc"u8).Zeroes(17).ToArray()));

        Assert.That(Assert.ThrowsAsync<NbdException>(() => reading.Soon())!.Error, Is.EqualTo(NbdError.OutOfMemory));
        await ServesAsync(server);
    }

    [Test, Property("Rule", "C058")]
    public async Task C058_Unknown_chunk_flags_are_ignored()
    {
        await using var server = new TransmissionServer();
        byte[] buffer = new byte[Length];
        Task reading = server.Client.ReadAsync(buffer, (long)At).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Chunk(
            request, ChunkType.OffsetData, new WireBytes().U64(At).Raw(Content).ToArray(), done: true, flags: 0xfffe));

        await reading.Soon();

        Assert.That(buffer, Is.EqualTo(Content));
    }

    [Test, Property("Rule", "C059")]
    public async Task C059_Chunks_are_taken_in_any_order([Range(1, 20)] int seed, [Values] bool extended)
    {
        await using var server = new TransmissionServer(Export(extended));
        var random = new Random(seed);
        byte[] buffer = [.. Enumerable.Repeat((byte)0xa5, 4096)];
        byte[] content = TestData.Random(4096, seed);
        Task reading = server.Client.ReadAsync(buffer, (long)At).AsTask();
        WireRequest request = await server.NextAsync();
        var chunks = new List<Func<bool, byte[]>>();
        for (int from = 0; from < content.Length;)
        {
            int start = from;
            int count = Math.Min(content.Length - from, random.Next(1, 600));
            if (random.Next(3) == 0)
            {
                content.AsSpan(start, count).Clear();
                chunks.Add(done => server.Hole(request, At + (ulong)start, (uint)count, done));
            }
            else
            {
                chunks.Add(done => server.Data(request, At + (ulong)start, content[start..(start + count)], done));
            }
            from += count;
        }
        Func<bool, byte[]>[] shuffled = [.. chunks];
        random.Shuffle(shuffled);
        for (int i = 0; i < shuffled.Length; i++)
        {
            await server.SendAsync(shuffled[i](i == shuffled.Length - 1));
        }

        await reading.Soon();

        Assert.That(buffer, Is.EqualTo(content), $"seed {seed}");
        await ServesAsync(server);
    }

    /// <summary>However a server cuts its answer, what the client remembers of it is bounded.</summary>
    [Test, Property("Rule", "C059")]
    public async Task C059_A_flood_of_single_bytes_ends_the_connection()
    {
        const int Pairs = (1 << 19) + 1;
        await using var server = new TransmissionServer(new TransmissionExport { Size = 1 << 22 });
        Task reading = server.Client.ReadSparseAsync(new byte[2 * Pairs], 0, _ => { }).AsTask();
        WireRequest request = await server.NextAsync();
        byte[] pair = [.. server.Data(request, 0, [1], done: false), .. server.Hole(request, 1, 1, done: false)];
        byte[] burst = [.. Enumerable.Repeat(pair, 128).SelectMany(bytes => bytes)];
        // Behind their headers of 20 bytes; the first has an offset and one byte of data.
        const int AtData = 20, AtHole = 20 + 9 + 20;
        for (int i = 0; i < Pairs && !reading.IsCompleted; i += 128)
        {
            for (int j = 0; j < 128; j++)
            {
                BinaryPrimitives.WriteUInt64BigEndian(burst.AsSpan((j * pair.Length) + AtData), (ulong)(2 * (i + j)));
                BinaryPrimitives.WriteUInt64BigEndian(burst.AsSpan((j * pair.Length) + AtHole), (ulong)(2 * (i + j)) + 1);
            }
            await server.SendAsync(burst);
        }

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => reading.Soon())!.Error, Is.EqualTo(NbdClientError.LimitExceeded));
    }

    [Test, Property("Rule", "C070")]
    public async Task C070_Chunks_that_overlap()
    {
        (int From, int Count)[] overlaps = [(0, 64), (0, 1), (10, 10), (29, 2), (39, 1), (30, 10), (20, 44), (0, 31)];
        foreach ((int from, int count) in overlaps)
        {
            await ClientViolation.CheckReadAsync(new TransmissionExport(), (server, request) =>
            [
                .. server.Data(request, At, Content[..11], done: false),
                .. server.Hole(request, At + 30, 10, done: false),
                .. server.Data(request, At + (ulong)from, new byte[count], done: false),
            ]);
        }
    }

    // Chunk offsets relative to 2^64 and to the request: each lies outside, if only by a byte.
    [Test, Property("Rule", "C071"), Property("Rule", "CVE_2019_14842")]
    [Property("Threat", "CVE-2019-14842")]
    public async Task C071_CVE_2019_14842_A_chunk_outside_of_the_request([Values] bool extended)
    {
        const ulong Count = 8;
        ulong[] offsets =
        [
            At - 1, 1UL << 63, ulong.MaxValue, unchecked(0UL - Count), At + Length, At + Length - Count + 1, 0, At - Count, ulong.MaxValue - At,
            unchecked(At - (1UL << 63)), At + (1UL << 32),
        ];
        foreach (ulong offset in offsets)
        {
            await ClientViolation.CheckReadAsync(
                Export(extended), (server, request) => server.Data(request, offset, Content[..(int)Count]));
            await ClientViolation.CheckReadAsync(
                Export(extended), (server, request) => server.Hole(request, offset, (uint)Count));
        }
        await ClientViolation.CheckReadAsync(Export(extended), (server, request) => server.Hole(request, At, uint.MaxValue));
        await ClientViolation.CheckReadAsync(Export(extended), (server, request) => server.Data(request, At, new byte[Length + 1]));
    }

    [Test, Property("Rule", "C072")]
    public async Task C072_A_reply_that_ends_before_all_data_was_sent()
    {
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Data(r, At, Content[..^1]));
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Data(r, At + 1, Content[1..]));
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Chunk(r, ChunkType.None, []));
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(),
            (s, r) => [.. s.Data(r, At, Content[..10], done: false), .. s.Hole(r, At + 11, Length - 11)]);
    }

    [Test, Property("Rule", "C073")]
    public async Task C073_Content_chunks_of_a_wrong_size()
    {
        foreach (int length in (int[])[0, 1, 7, 8])
        {
            await ClientViolation.CheckReadAsync(
                new TransmissionExport(),
                (s, r) => s.Chunk(r, ChunkType.OffsetData, new WireBytes().U64(At).ToArray()[..length], done: false));
        }
        foreach (int length in (int[])[0, 8, 11, 13])
        {
            await ClientViolation.CheckReadAsync(
                new TransmissionExport(),
                (s, r) => s.Chunk(r, ChunkType.OffsetHole, new WireBytes().U64(At).U32(8).U32(0).ToArray()[..length], done: false));
        }
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Hole(r, At, 0, done: false));
    }

    [Test, Property("Rule", "C074")]
    public async Task C074_A_NONE_chunk_with_payload_or_before_the_end()
    {
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Chunk(r, ChunkType.None, new byte[1]));
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (s, r) => s.Chunk(r, ChunkType.None, [], done: false));
    }

    [Test, Property("Rule", "C075"), Property("Rule", "C076"), Property("Threat", "linux-2021-unexpected-messages")]
    public async Task C075_C076_A_chunk_after_the_last_and_a_second_reply([Values] bool structured)
    {
        TransmissionExport export = structured ? new TransmissionExport() : TransmissionExport.Simple;
        await using var server = new TransmissionServer(export);
        byte[] buffer = new byte[Length];
        int completions = 0;
        Task reading = Count(server.Client.ReadAsync(buffer, (long)At));
        Task bystander = server.Client.FlushAsync().AsTask();
        WireRequest request = await server.NextAsync();
        await server.NextAsync();
        byte[] success = server.Success(request, Content);

        await server.SendAsync([.. success, .. success]);

        await reading.Soon();
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => bystander.Soon())!.Error, Is.EqualTo(NbdClientError.ProtocolViolation));
        Assert.That(completions, Is.EqualTo(1));
        Assert.That(buffer, Is.EqualTo(Content));

        async Task Count(ValueTask task)
        {
            await task;
            Interlocked.Increment(ref completions);
        }
    }

    [Test, Property("Rule", "C077")]
    public async Task C077_A_chunk_that_claims_more_than_there_can_be([Values] bool extended)
    {
        ushort[] types = [ChunkType.OffsetData, ChunkType.OffsetHole, ChunkType.None, ChunkType.Error, ChunkType.ErrorOffset, 0x8077];
        foreach (ushort type in types)
        {
            await ClientViolation.CheckReadAsync(
                Export(extended),
                (s, r) => s.Chunk(r, type, uint.MaxValue, new WireBytes().U64(At).Zeroes(16).ToArray()));
        }
        await ClientViolation.CheckStatusAsync(
            extended ? TransmissionExport.WithExtended : TransmissionExport.WithContext,
            (s, r) => s.Chunk(r, (ushort)(extended ? 6 : 5), uint.MaxValue - 3, new WireBytes().U32(7).Zeroes(16).ToArray()),
            extended ? NbdClientError.ProtocolViolation : NbdClientError.LimitExceeded);
    }

    [Test, Property("Rule", "C078")]
    public Task C078_An_error_without_a_number([Values(0x8001, 0x8002, 0x8077)] int type)
        => ClientViolation.CheckReadAsync(
            new TransmissionExport(),
            (s, r) => s.Chunk(r, (ushort)type, new WireBytes().U32(0).U16(0).Raw(type == 0x8002 ? new byte[8] : []).ToArray()));

    [Test, Property("Rule", "C079"), Property("Rule", "CVE_2019_14842")]
    [Property("Threat", "CVE-2019-14842")]
    public async Task C079_CVE_2019_14842_An_error_outside_of_the_request()
    {
        foreach (ulong offset in (ulong[])[At - 1, At + Length, 0, 1UL << 63, ulong.MaxValue])
        {
            await ClientViolation.CheckReadAsync(
                new TransmissionExport(),
                (s, r) => s.Chunk(r, ChunkType.ErrorOffset, new WireBytes().U32(5).U16(0).U64(offset).ToArray()));
        }
    }

    [Test, Property("Rule", "C080")]
    [Property("Threat", "CVE-2022-0485")]
    public async Task C080_A_read_that_fails_leaves_no_byte_that_could_be_taken_for_data([Values(0x8001, 0x8002)] int type)
    {
        await using var server = new TransmissionServer();
        byte[] buffer = [.. Enumerable.Repeat((byte)0xa5, Length)];
        Task reading = server.Client.ReadAsync(buffer, (long)At).AsTask();
        WireRequest request = await server.NextAsync();
        WireBytes error = new WireBytes().U32(WireError.Io).U16(3).Raw("bad"u8);
        await server.SendAsync(
        [
            .. server.Data(request, At, Content[..32], done: false),
            .. server.Chunk(
                request, (ushort)type, (type == ChunkType.ErrorOffset ? error.U64(At + 32) : error).ToArray(), done: false),
            .. server.Data(request, At + 32, Content[32..], done: false),
            .. server.Chunk(request, ChunkType.None, []),
        ]);

        NbdException failure = Assert.ThrowsAsync<NbdException>(() => reading.Soon())!;

        Assert.That(failure.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(failure.Message, Does.Contain("bad").And.Contain(type == ChunkType.ErrorOffset ? $"at {At + 32}" : "bad"));
        Assert.That(buffer, Is.All.Zero);
        await ServesAsync(server);
    }

    [Test, Property("Rule", "C081")]
    public async Task C081_A_reply_in_two_chunks_that_was_not_to_be_fragmented()
    {
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(),
            (s, r) => [.. s.Data(r, At, Content[..32], done: false), .. s.Data(r, At + 32, Content[32..])],
            dontFragment: true);
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(),
            (s, r) => [.. s.Hole(r, At, 32, done: false), .. s.Data(r, At + 32, Content[32..])],
            dontFragment: true);
    }

    [Test, Property("Rule", "C082"), Property("Threat", "libnbd-2023-05-short-reply")]
    public async Task C082_A_reply_of_a_form_that_was_not_negotiated()
    {
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(), (_, r) => [.. TransmissionServer.Simple(r.Cookie, 0), .. Content]);
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(), (_, r) => TransmissionServer.Simple(r.Cookie, WireError.Io));
        await ClientViolation.CheckReadAsync(
            TransmissionExport.Simple,
            (_, r) => new WireBytes().U32(Magic.Chunk).U16(1).U16(ChunkType.Error).U64(r.Cookie).U32(6).U32(5).U16(0).ToArray());
        // Only as many bytes as the short form has: a client that waits for 32 would wait for ever.
        await ClientViolation.CheckReadAsync(
            TransmissionExport.WithExtended, (_, r) => TransmissionServer.Simple(r.Cookie, WireError.Io));
        await ClientViolation.CheckReadAsync(
            TransmissionExport.WithExtended,
            (_, r) => new WireBytes().U32(Magic.Chunk).U16(1).U16(0).U64(r.Cookie).U32(0).ToArray());
        await ClientViolation.CheckReadAsync(
            new TransmissionExport(),
            (_, r) => new WireBytes().U32(Magic.ExtendedReply).U16(1).U16(0).U64(r.Cookie).U64(At).U64(0).ToArray());
        await ClientViolation.CheckReadAsync(new TransmissionExport(), (_, _) => [1, 2, 3, 4]);
    }

    [Test, Property("Rule", "C083")]
    public async Task C083_An_extended_reply_with_another_offset_or_an_impossible_length()
    {
        foreach ((ulong offset, ulong length) in ((ulong, ulong)[])[(At + 1, 0), (0, 0), (At, 1UL << 32), (At, ulong.MaxValue)])
        {
            await ClientViolation.CheckReadAsync(
                TransmissionExport.WithExtended,
                (_, r) => new WireBytes().U32(Magic.ExtendedReply).U16(1).U16(ChunkType.Error).U64(r.Cookie)
                    .U64(offset).U64(length).ToArray());
        }
    }

    [Test]
    public async Task Data_in_reply_to_a_command_that_has_none()
    {
        await ClientViolation.CheckAsync(
            new TransmissionExport(),
            (client, _) => client.TrimAsync(ClientViolation.Offset, Length),
            (s, r) => s.Data(r, At, Content),
            NbdClientError.ProtocolViolation);
        await ClientViolation.CheckAsync(
            TransmissionExport.WithContext,
            (client, buffer) => client.ReadAsync(buffer, ClientViolation.Offset),
            (s, r) => s.Status(r, 7, (64, 0)),
            NbdClientError.ProtocolViolation);
    }

    [Test]
    public async Task Pieces_that_lie_apart_are_taken_up_to_a_limit()
    {
        await using var server = new TransmissionServer();
        const int Bytes = 70_000;
        Task reading = server.Client.ReadAsync(new byte[Bytes], 0).AsTask();
        WireRequest request = await server.NextAsync();
        var reply = new List<byte>();
        for (uint i = 0; i < Bytes; i += 2)
        {
            reply.AddRange(server.Hole(request, i, 1, done: false));
        }
        await server.SendAsync([.. reply]);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => reading.Soon())!.Error, Is.EqualTo(NbdClientError.LimitExceeded));
    }

    private static TransmissionExport Export(bool extended) => extended ? TransmissionExport.WithExtended : new TransmissionExport();

    private static async Task ServesAsync(TransmissionServer server)
    {
        byte[] buffer = new byte[3];
        Task reading = server.Client.ReadAsync(buffer, 5).AsTask();
        await server.SucceedAsync(await server.NextAsync(), 1, 2, 3);
        await reading.Soon();
        Assert.That(buffer, Is.EqualTo((byte[])[1, 2, 3]));
    }
}
