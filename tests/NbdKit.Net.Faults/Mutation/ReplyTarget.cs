using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>A client, and what a server sends it: the handshake and the replies to requests that are all in flight.</summary>
internal sealed class ReplyTarget(bool handshake) : MutationTarget
{
    private const int Forms = 4;
    private const int Canary = 64;
    private const byte Untouched = 0xa5;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    // In this order; the n-th has the n-th cookie.
    private static readonly (ushort Command, int Offset, int Length)[] Requests =
    [
        (Cmd.Read, 4096, 64),
        (Cmd.Write, 0, 100),
        (Cmd.Flush, 0, 0),
        (Cmd.Read, 8192, 1000),
        (Cmd.Trim, 0, 512),
        (Cmd.WriteZeroes, 512, 512),
        (Cmd.Cache, 0, 4096),
        (Cmd.BlockStatus, 0, 65_536),
    ];

    public override string Name => handshake ? "answers" : "replies";

    public override MutantStream Make(Random random, bool legal)
    {
        int form = random.Next(Forms);
        List<WireMessage> session = Session(random, form, legal);
        int keep = handshake ? 0 : ServerSpeechLength(session);
        return new MutantStream(
            (byte)form,
            legal ? Mutator.Chop(Mutator.Join(session), random) : Mutator.Spoil(session, Session(random, form, legal), keep, random));
    }

    public override async Task<long> RunAsync(MutantStream stream, bool legal)
    {
        int form = stream.Variant % Forms;
        var options = new NbdClientOptions
        {
            RequestExtendedHeaders = form == 3,
            RequestStructuredReplies = form > 0,
            MetaContexts = form >= 2 ? [ExtentList.BaseAllocation] : [],
            MaxPayload = 1 << 20,
            HandshakeTimeout = Timeout.InfiniteTimeSpan,
        };
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

    private static List<WireMessage> Session(Random random, int form, bool legal)
    {
        List<WireMessage> session = ServerSpeech.Handshake(random, form);
        var replies = new List<List<WireMessage>>();
        for (int i = 0; i < RequestsOf(form); i++)
        {
            (ushort command, int offset, int length) = Requests[i];
            ulong cookie = ((ulong)(i + 1) << 32) | (uint)i;
            replies.Add(!legal && form > 0 && random.Next(12) == 0
                ? [ServerSpeech.Error(form, cookie, (ulong)offset)]
                : ServerSpeech.Reply(random, form, cookie, command, (ulong)offset, (uint)length));
        }
        random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(replies));
        session.AddRange(replies.SelectMany(reply => reply));
        return session;
    }

    private static int RequestsOf(int form) => form >= 2 ? Requests.Length : Requests.Length - 1;

    /// <summary>The messages up to the acknowledgement that ends the handshake.</summary>
    private static int ServerSpeechLength(List<WireMessage> session)
        => session.FindLastIndex(message => message.Fields.Count == 4 && message.Fields[0].Bytes.Length == 8) + 1;

    private static async Task UseAsync(NbdClient client, ReplayTransport transport, int form, bool legal)
    {
        var buffers = new List<(byte[] Memory, int Offset, int Length)>();
        var extents = new ExtentList(0, (long)ServerSpeech.Size);
        var tasks = new List<Task>();
        for (int i = 0; i < RequestsOf(form); i++)
        {
            (ushort command, int offset, int length) = Requests[i];
            tasks.Add(command switch
            {
                Cmd.Read => ReadAsync(client, offset, length, buffers),
                Cmd.Write => client.WriteAsync(new byte[length], offset).AsTask(),
                Cmd.Flush => client.FlushAsync().AsTask(),
                Cmd.Trim => client.TrimAsync(offset, length).AsTask(),
                Cmd.WriteZeroes => client.ZeroAsync(offset, length).AsTask(),
                Cmd.Cache => client.CacheAsync(offset, length).AsTask(),
                _ => client.ExtentsAsync(offset, length, RequestFlags.None, extents).AsTask(),
            });
        }
        transport.Release();
        for (int i = 0; i < tasks.Count; i++)
        {
            try
            {
                await tasks[i].WaitAsync(Patience);
            }
            catch (Exception e) when (!legal && e is NbdException or NbdClientException)
            {
                // As it must be.
            }
        }
        await client.DisposeAsync().AsTask().WaitAsync(Patience);
        foreach ((byte[] memory, int offset, int length) in buffers)
        {
            MutationException.Require(
                memory.AsSpan(0, Canary).IndexOfAnyExcept(Untouched) < 0 && memory.AsSpan(Canary + length).IndexOfAnyExcept(Untouched) < 0,
                $"bytes around the buffer of the read at {offset} were written");
        }
        long covered = 0;
        foreach (Extent extent in extents)
        {
            MutationException.Require(extent.Offset == covered && extent.Length > 0, $"{extent} after {covered} bytes");
            covered = extent.End;
        }
        MutationException.Require(covered <= (long)ServerSpeech.Size, $"extents up to {covered}");
    }

    private static Task ReadAsync(NbdClient client, int offset, int length, List<(byte[], int, int)> buffers)
    {
        byte[] memory = new byte[Canary + length + Canary];
        memory.AsSpan().Fill(Untouched);
        buffers.Add((memory, offset, length));
        return client.ReadAsync(memory.AsMemory(Canary, length), offset).AsTask();
    }
}
