using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>What a client takes for the answer to a block status, and what not.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientBlockStatusTests
{
    private const uint Context = 7;
    private const long At = ClientViolation.Offset;

    private static readonly TransmissionExport Two = TransmissionExport.WithContext with
    {
        Contexts = new Dictionary<uint, string> { [Context] = "base:allocation", [0xfffffff0] = "x:y" },
    };

    [TestCase(0)]
    [TestCase(4)]
    [TestCase(11)]
    [TestCase(13)]
    [Property("Rule", "C060"), Property("Threat", "libnbd-2023-07-block-status")]
    public Task C060_A_block_status_of_a_wrong_size(int length)
        => ClientViolation.CheckStatusAsync(
            TransmissionExport.WithContext,
            (s, r) => s.Chunk(r, ChunkType.BlockStatus, new WireBytes().U32(Context).U32(64).U32(0).U32(0).ToArray()[..length]));

    [Test, Property("Rule", "C061"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C061_A_context_that_is_unknown_repeated_or_missing()
    {
        await ClientViolation.CheckStatusAsync(Two, (s, r) => s.Status(r, 8, done: false, (64, 0)));
        await ClientViolation.CheckStatusAsync(
            Two, (s, r) => [.. s.Status(r, Context, done: false, (64, 0)), .. s.Status(r, Context, (64, 0))]);
        await ClientViolation.CheckStatusAsync(Two, (s, r) => s.Status(r, Context, (64, 0)));
        await ClientViolation.CheckStatusAsync(Two, (s, r) => s.Chunk(r, ChunkType.None, []));
    }

    [Test, Property("Rule", "C062"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C062_An_extent_of_no_bytes([Values] bool extended)
    {
        TransmissionExport export = extended ? TransmissionExport.WithExtended : TransmissionExport.WithContext;
        await ClientViolation.CheckStatusAsync(export, (s, r) => s.Status(r, Context, (0, 0)));
        await ClientViolation.CheckStatusAsync(export, (s, r) => s.Status(r, Context, (4, 0), (0, 1), (60, 0)));
    }

    [Test, Property("Rule", "C063"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C063_Lengths_that_add_up_to_more_than_there_is_are_clipped_or_refused()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext);
        var extents = new ExtentList(At, 1 << 20);
        Task asking = server.Client.ExtentsAsync(At, 64, RequestFlags.None, extents).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Status(request, Context, [.. Enumerable.Repeat((4096UL, 1UL), 2), .. Enumerable.Repeat((0xffff_ffffUL, 2UL), 9)]));
        await asking.Soon();

        Assert.That(
            extents, Is.EqualTo((Extent[])[new(At, 8192, ExtentStatus.Hole), new(At + 8192, (1 << 20) - At - 8192, ExtentStatus.Zero)]));
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithExtended, (s, r) => s.Status(r, Context, (ulong.MaxValue, 0)));
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithExtended, (s, r) => s.Status(r, Context, (1UL << 62, 0), (1UL << 62, 0)));
    }

    [Test, Property("Rule", "C064"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C064_More_than_the_one_extent_asked_for()
    {
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithContext, (s, r) => s.Status(r, Context, (65, 0)), flags: RequestFlags.RequestOne);
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithContext, (s, r) => s.Status(r, Context, (32, 0), (32, 1)), flags: RequestFlags.RequestOne);
    }

    [Test, Property("Rule", "C065"), Property("Rule", "C066"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C065_C066_Equal_neighbours_and_unknown_bits_are_taken()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext);
        var extents = new ExtentList(At, 1 << 20);
        Task asking = server.Client.ExtentsAsync(At, 64, RequestFlags.None, extents).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Status(request, Context, (8, 0xffff_ffff), (8, 3), (16, 0xffff_fffd), (32, 0)));
        await asking.Soon();

        Assert.That(extents, Is.EqualTo((Extent[])
        [
            new(At, 16, ExtentStatus.Hole | ExtentStatus.Zero), new(At + 16, 16, ExtentStatus.Hole), new(At + 32, 32, ExtentStatus.Data),
        ]));
    }

    [Test, Property("Rule", "C067"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C067_More_extents_than_allowed()
    {
        TransmissionExport few = TransmissionExport.WithContext with { Options = new NbdClientOptions { MaxExtents = 3 } };
        await ClientViolation.CheckStatusAsync(
            few, (s, r) => s.Status(r, Context, (1, 0), (1, 1), (1, 0), (1, 1)), NbdClientError.LimitExceeded);
        await ClientViolation.CheckStatusAsync(
            Two with { Options = few.Options },
            (s, r) => [.. s.Status(r, Context, done: false, (1, 0), (1, 1)), .. s.Status(r, 0xfffffff0, (1, 0), (1, 1))],
            NbdClientError.LimitExceeded);
        // One more than 2^20 is refused when it is claimed, before any of them came.
        foreach (ulong count in (ulong[])[(1 << 20) + 1, 1 << 28])
        {
            await ClientViolation.CheckStatusAsync(
                TransmissionExport.WithContext,
                (s, r) => s.Chunk(r, ChunkType.BlockStatus, 4 + (8 * count), []),
                NbdClientError.LimitExceeded);
        }
    }

    [Test, Property("Rule", "C068"), Property("Threat", "libnbd-2023-07-block-status")]
    public async Task C068_The_form_must_be_the_negotiated_one_and_the_count_must_match()
    {
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithContext,
            (s, r) => s.Chunk(r, 6, new WireBytes().U32(Context).U32(1).U64(64).U64(0).ToArray()));
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithExtended,
            (s, r) => s.Chunk(r, ChunkType.BlockStatus, new WireBytes().U32(Context).U32(64).U32(0).ToArray()));
        foreach (uint count in (uint[])[0, 2, uint.MaxValue])
        {
            await ClientViolation.CheckStatusAsync(
                TransmissionExport.WithExtended,
                (s, r) => s.Chunk(r, 6, new WireBytes().U32(Context).U32(count).U64(64).U64(0).ToArray()));
        }
    }

    [Test, Property("Rule", "CVE_2023_5871")]
    [Property("Threat", "CVE-2023-5871")]
    public async Task CVE_2023_5871_High_status_bits_are_refused_for_allocation_and_delivered_for_others()
    {
        await ClientViolation.CheckStatusAsync(
            TransmissionExport.WithExtended, (s, r) => s.Status(r, Context, (64, 1UL << 32)));

        await using var server = new TransmissionServer(Two with { Extended = true });
        var extents = new ExtentList(At, 1 << 20, "x:y");
        Task asking = server.Client.ExtentsAsync(At, 64, RequestFlags.None, extents).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(
            [.. server.Status(request, Context, done: false, (64, 0)), .. server.Status(request, 0xfffffff0, (64, ulong.MaxValue - 5))]);
        await asking.Soon();

        Assert.That(extents, Is.EqualTo((Extent[])[new(At, 64, (ExtentStatus)(ulong.MaxValue - 5))]));
    }

    [Test, Property("Rule", "C050")]
    public async Task C050_Only_granted_contexts_are_asked_for()
    {
        await using var without = new TransmissionServer();
        await using var with = new TransmissionServer(TransmissionExport.WithContext);

        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => Ask(without, "base:allocation"))!.Message, Does.Contain("base:allocation"));
        Assert.That(Assert.ThrowsAsync<NbdException>(() => Ask(with, "x:y"))!.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.ThrowsAsync<NbdException>(() => without.Client.ExtentsOfAllContextsAsync(0, 5).AsTask());
        Assert.That(without.HasInput() || with.HasInput(), Is.False);

        static Task Ask(TransmissionServer server, string context)
            => server.Client.ExtentsAsync(0, 64, RequestFlags.None, new ExtentList(0, 64, context)).AsTask();
    }

    [Test]
    public async Task All_contexts_come_with_one_request()
    {
        await using var server = new TransmissionServer(Two);
        Task<IReadOnlyDictionary<string, ExtentList>> asking = server.Client.ExtentsOfAllContextsAsync(At, 64).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(
            [.. server.Status(request, 0xfffffff0, done: false, (10, 4), (54, 5)), .. server.Status(request, Context, (128, 1))]);

        IReadOnlyDictionary<string, ExtentList> lists = await asking.Soon();

        Assert.That(lists["base:allocation"], Is.EqualTo((Extent[])[new(At, 128, ExtentStatus.Hole)]));
        Assert.That(lists["x:y"], Is.EqualTo((Extent[])[new(At, 10, (ExtentStatus)4), new(At + 10, 54, (ExtentStatus)5)]));
    }

    [Test]
    public async Task It_is_asked_again_until_the_range_is_covered()
    {
        await using var server = new TransmissionServer(TransmissionExport.WithContext);
        var extents = new ExtentList(0, 1 << 20);
        Task asking = server.Client.ExtentsAsync(0, 100, RequestFlags.None, extents).AsTask();
        foreach ((ulong offset, ulong length, ulong answer) in ((ulong, ulong, ulong)[])[(0, 100, 30), (30, 70, 69), (99, 1, 500)])
        {
            WireRequest request = await server.NextAsync();
            Assert.That((request.Offset, request.Length), Is.EqualTo((offset, length)));
            await server.SendAsync(server.Status(request, Context, (answer, offset % 2)));
        }
        await asking.Soon();

        Assert.That(extents.Covered, Is.EqualTo(599));
    }

    [Test]
    public async Task Without_checks_a_range_beyond_the_end_is_asked_for_once()
    {
        await using var server = new TransmissionServer(
            TransmissionExport.WithContext with { Options = new NbdClientOptions { Strictness = NbdStrictness.None } });
        var extents = new ExtentList(1 << 20, 1 << 21);
        Task asking = server.Client.ExtentsAsync(1 << 20, 64, RequestFlags.None, extents).AsTask();
        WireRequest request = await server.NextAsync();
        await server.SendAsync(server.Status(request, Context, (64, 0)));

        await asking.Soon();

        Assert.That(extents, Is.Empty);
    }

    [Test, Property("Rule", "C084")]
    public async Task C084_One_of_several_contexts_is_named_in_a_payload_only_if_the_server_takes_it([Values] bool granted)
    {
        ushort flag = granted ? TxFlag.BlockStatusPayload : (ushort)0;
        await using var server = new TransmissionServer(Two with { Extended = true, Flags = (ushort)(Two.Flags | flag) });
        var extents = new ExtentList(At, 1 << 20);
        Task asking = server.Client.ExtentsAsync(At, 64, RequestFlags.None, extents).AsTask();
        WireRequest request = await server.NextAsync();

        Assert.That(request.Flags, Is.EqualTo(granted ? CmdFlag.PayloadLength : 0));
        Assert.That(request.Length, Is.EqualTo(granted ? 12 : 64));
        Assert.That(request.Data, Is.EqualTo(granted ? new WireBytes().U64(64).U32(Context).ToArray() : []));
        await server.SendAsync(granted
            ? server.Status(request, Context, (64, 1))
            : [.. server.Status(request, 0xfffffff0, done: false, (64, 0)), .. server.Status(request, Context, (64, 1))]);
        await asking.Soon();
        Assert.That(extents.Count, Is.EqualTo(1));
    }
}
