using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>A client, and what a server sends it: the handshake and the replies to requests that are all in flight.</summary>
internal sealed class ReplyTarget(bool handshake) : MutationTarget
{
    private const int Canary = 64;
    private const byte Untouched = 0xa5;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    // In this order; the n-th that is made has the n-th cookie.
    private static readonly ClientCall[] Calls =
    [
        new(Cmd.Read, 4096, 64),
        new(Cmd.Write, 0, 100),
        new(Cmd.Flush, 0, 0),
        new(Cmd.Read, 8192, 1000),
        new(Cmd.Trim, 0, 512),
        new(Cmd.WriteZeroes, 512, 512),
        new(Cmd.Cache, 0, 4096),
        new(Cmd.BlockStatus, 0, 65_536),
        new(Cmd.Read, 16_384, 600) { IsOther = true },
        new(Cmd.Read, 32_768, 300, CmdFlag.Df) { IsOther = true, IsGivenUp = true },
        new(Cmd.Read, 65_536, 500) { IsGivenUp = true },
        new(Cmd.BlockStatus, 4096, 8192, CmdFlag.ReqOne) { IsGivenUp = true },
        new(Cmd.BlockStatus, 0, 65_536) { IsOther = true },
    ];

    public override string Name => handshake ? "answers" : "replies";

    public override MutantStream Make(Random random, bool legal)
    {
        ClientForm form = ClientForm.Any(random);
        (List<WireMessage> session, int keep) = Session(random, form, legal);
        return new MutantStream(
            form.Variant,
            legal ? Mutator.Chop(Mutator.Join(session), random) : Mutator.Spoil(session, Session(random, form, legal).Messages, keep, random));
    }

    public override async Task<long> RunAsync(MutantStream stream, bool legal)
    {
        var form = new ClientForm(stream.Variant);
        NbdClientOptions options = form.Options();
        var transport = new ReplayTransport(stream.Chunks, new MemoryStream(), waitsForRelease: true);
        NbdClient? client = null;
        try
        {
            client = new NbdClient(
                await ClientHandshake.RunAsync(transport, options, null, CancellationToken.None).WaitAsync(Patience), options);
        }
        catch (NbdClientException) when (!legal)
        {
            // As it must be.
        }
        if (client is not null)
        {
            await UseAsync(client, transport, form, legal);
        }
        RequestGrammar.Check(transport.Output);
        return stream.Length * 4;
    }

    private (List<WireMessage> Messages, int Keep) Session(Random random, ClientForm form, bool legal)
    {
        List<WireMessage> session = ServerSpeech.Handshake(random, form);
        int keep = handshake ? 0 : session.Count;
        var replies = new List<List<WireMessage>>();
        foreach (ClientCall call in CallsOf(form))
        {
            ulong cookie = ((ulong)(replies.Count + 1) << 32) | (uint)replies.Count;
            replies.Add(!legal && form.IsStructured && random.Next(12) == 0
                ? ReplySpeech.Failure(random, form, cookie, call)
                : ReplySpeech.Reply(random, form, cookie, call));
        }
        random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(replies));
        session.AddRange(replies.SelectMany(reply => reply));
        return (session, keep);
    }

    private static IEnumerable<ClientCall> CallsOf(ClientForm form)
        => Calls.Where(call => call.Command != Cmd.BlockStatus || form.Contexts.Count > 0);

    private static async Task UseAsync(NbdClient client, ReplayTransport transport, ClientForm form, bool legal)
    {
        var buffers = new List<(byte[] Memory, ClientCall Call)>();
        var extents = new ExtentList(0, (long)ServerSpeech.Size);
        using var giveUp = new CancellationTokenSource();
        List<(ClientCall Call, Task Task)> tasks =
            [.. CallsOf(form).Select(call => (call, MakeAsync(client, call, buffers, extents, call.IsGivenUp ? giveUp.Token : default)))];
        if (form.IsImpatient)
        {
            await giveUp.CancelAsync();
        }
        transport.Release();
        foreach ((ClientCall call, Task task) in tasks)
        {
            try
            {
                await task.WaitAsync(Patience);
            }
            catch (OperationCanceledException) when (call.IsGivenUp && form.IsImpatient)
            {
                // As was asked for.
            }
            catch (Exception e) when (!legal && e is NbdException or NbdClientException)
            {
                // As it must be.
            }
        }
        await client.DisposeAsync().AsTask().WaitAsync(Patience);
        PoolBalance.Check(client.Slabs);
        foreach ((byte[] memory, ClientCall call) in buffers)
        {
            MutationException.Require(
                memory.AsSpan(0, Canary).IndexOfAnyExcept(Untouched) < 0
                    && memory.AsSpan(Canary + call.Length).IndexOfAnyExcept(Untouched) < 0,
                $"bytes around the buffer of the read at {call.Offset} were written");
            MutationException.Require(!legal || IsContent(memory, call), $"the read at {call.Offset} got something else");
        }
        long covered = 0;
        foreach (Extent extent in extents)
        {
            MutationException.Require(extent.Offset == covered && extent.Length > 0, $"{extent} after {covered} bytes");
            covered = extent.End;
        }
        MutationException.Require(covered <= (long)ServerSpeech.Size, $"extents up to {covered}");
    }

    private static Task MakeAsync(
        NbdClient client, ClientCall call, List<(byte[], ClientCall)> buffers, ExtentList extents, CancellationToken token)
    {
        (int offset, int length) = (call.Offset, call.Length);
        switch (call.Command)
        {
            case Cmd.Read:
                byte[] memory = new byte[Canary + length + Canary];
                memory.AsSpan().Fill(Untouched);
                buffers.Add((memory, call));
                Memory<byte> buffer = memory.AsMemory(Canary, length);
                return call.IsOther
                    ? ReadSparseAsync(client, call, buffer, token)
                    : client.ReadAsync(buffer, offset, token).AsTask();
            case Cmd.Write:
                return client.WriteAsync(new byte[length], offset, cancellationToken: token).AsTask();
            case Cmd.Flush:
                return client.FlushAsync(token).AsTask();
            case Cmd.Trim:
                return client.TrimAsync(offset, length, cancellationToken: token).AsTask();
            case Cmd.WriteZeroes:
                return client.ZeroAsync(offset, length, cancellationToken: token).AsTask();
            case Cmd.Cache:
                return client.CacheAsync(offset, length, token).AsTask();
            case var _ when call.IsOther:
                return client.ExtentsOfAllContextsAsync(offset, length, cancellationToken: token).AsTask();
            default:
                bool one = (call.Flags & CmdFlag.ReqOne) != 0;
                return client.ExtentsAsync(
                    offset,
                    length,
                    one ? RequestFlags.RequestOne : RequestFlags.None,
                    one ? new ExtentList(offset, (long)ServerSpeech.Size) : extents,
                    token).AsTask();
        }
    }

    private static async Task ReadSparseAsync(NbdClient client, ClientCall call, Memory<byte> buffer, CancellationToken token)
    {
        long at = call.Offset;
        await client.ReadSparseAsync(
            buffer,
            call.Offset,
            chunk =>
            {
                MutationException.Require(chunk.Offset == at && chunk.Length > 0, $"{chunk} after the bytes up to {at}");
                at += chunk.Length;
            },
            (call.Flags & CmdFlag.Df) != 0,
            token);
        MutationException.Require(at == call.Offset + call.Length, $"a sparse read told of the bytes up to {at} of {call}");
    }

    /// <summary>
    /// Whether each byte is what a good server sends; or zero for a hole, which may lie in the first half; or untouched, because it
    /// is a hole that was told of or nobody waited for it.
    /// </summary>
    private static bool IsContent(byte[] memory, ClientCall call)
    {
        for (int i = 0; i < call.Length; i++)
        {
            byte got = memory[Canary + i];
            bool isHole = i < call.Length / 2 && got == (call.IsOther ? Untouched : 0);
            if (got != MutantPlugin.At((ulong)(call.Offset + i)) && !isHole && !call.IsGivenUp)
            {
                return false;
            }
        }
        return true;
    }
}
