using NbdKit.Client;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>Our client, whose server stops at any byte.</summary>
internal static class CutClient
{
    // size 64, transmission flags 16, 124 zeroes
    private const int ExportNameReply = 134;

    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Moment = TimeSpan.FromMilliseconds(1);

    public static async Task RunAsync(int form, int at, CutKind kind)
    {
        (byte[] bytes, int handshake, List<int> replies) = CutSession.OfServer(form);
        var time = new FakeTimeProvider();
        var options = new NbdClientOptions
        {
            RequestExtendedHeaders = form == CutSession.Extended,
            RequestStructuredReplies = form >= CutSession.Structured,
            MetaContexts = form >= CutSession.Structured ? [ExtentList.BaseAllocation] : [],
            HandshakeTimeout = Limit,
            RequestTimeout = Limit,
            TimeProvider = time,
        };
        var release = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var transport = new CutTransport(bytes, at, kind, release.Task);
        Task<ClientSession> connecting = ClientHandshake.RunAsync(transport, options, null, CancellationToken.None);
        if (at < handshake)
        {
            // To close in place of an answer is how a server refuses NBD_OPT_EXPORT_NAME.
            bool refuses = form == CutSession.ExportName && at == handshake - ExportNameReply && kind != CutKind.Stall;
            await FailAsync(refuses ? NbdClientError.ExportUnknown : NbdClientError.ConnectionLost, connecting, transport, time, kind);
        }
        else
        {
            var client = new NbdClient(await connecting.Soon(), options);
            await UseAsync(client, form, transport, release, time, kind, replies.Count(end => end <= at));
        }
        RequestGrammar.Check(transport.Output);
    }

    private static async Task FailAsync(
        NbdClientError lost, Task connecting, CutTransport transport, FakeTimeProvider time, CutKind kind)
    {
        if (kind == CutKind.Stall)
        {
            await transport.Stalled.Soon();
            time.Advance(Limit - Moment);
            MutationException.Require(!connecting.IsCompleted, $"the server had {Moment} left");
            time.Advance(Moment);
        }
        NbdClientError expected = kind == CutKind.Stall ? NbdClientError.Timeout : lost;
        try
        {
            await connecting.Soon();
        }
        catch (NbdClientException e) when (e.Error == expected)
        {
            return;
        }
        throw new MutationException("a handshake that was cut succeeded");
    }

    private static async Task UseAsync(
        NbdClient client, int form, CutTransport transport, TaskCompletionSource release, FakeTimeProvider time, CutKind kind, int complete)
    {
        var buffers = new List<(byte[] Data, int Offset)>();
        var extents = new ExtentList(0, (long)ServerSpeech.Size);
        List<Task> tasks = [.. CutSession.Requests.Take(CutSession.RequestsOf(form)).Select(request => Ask(client, request, buffers, extents))];
        release.SetResult();
        if (kind == CutKind.Stall)
        {
            await transport.Stalled.Soon();
            time.Advance(Limit);
        }
        int succeeded = 0;
        foreach (Task task in tasks)
        {
            try
            {
                await task.Soon();
                succeeded++;
            }
            catch (NbdClientException e) when (e.Error is NbdClientError.ConnectionLost or NbdClientError.Timeout)
            {
                // Its reply did not come.
            }
        }
        MutationException.Require(succeeded == complete, $"{succeeded} requests succeeded, and {complete} replies came");
        for (int i = 0; i < buffers.Count; i++)
        {
            // The first read is the first request, the second the fourth.
            CheckData(form, buffers[i], isComplete: complete > (i == 0 ? 0 : 3));
        }
        Task leaving = client.DisposeAsync().AsTask();
        transport.Finish();
        await leaving.Soon();
    }

    private static Task Ask(
        NbdClient client, (ushort Command, int Offset, int Length) request, List<(byte[] Data, int Offset)> buffers, ExtentList extents)
    {
        switch (request.Command)
        {
            case Cmd.Read:
                byte[] buffer = new byte[request.Length];
                buffers.Add((buffer, request.Offset));
                return client.ReadAsync(buffer, request.Offset).AsTask();
            case Cmd.Write:
                return client.WriteAsync(new byte[request.Length], request.Offset).AsTask();
            case Cmd.Flush:
                return client.FlushAsync().AsTask();
            case Cmd.Trim:
                return client.TrimAsync(request.Offset, request.Length).AsTask();
            case Cmd.WriteZeroes:
                return client.ZeroAsync(request.Offset, request.Length).AsTask();
            case Cmd.Cache:
                return client.CacheAsync(request.Offset, request.Length).AsTask();
            default:
                return client.ExtentsAsync(request.Offset, request.Length, RequestFlags.None, extents).AsTask();
        }
    }

    private static void CheckData(int form, (byte[] Data, int Offset) read, bool isComplete)
    {
        for (int i = 0; isComplete && i < read.Data.Length; i++)
        {
            byte expected = MutantPlugin.At((ulong)(read.Offset + i));
            // With structured replies the first half may be a hole.
            MutationException.Require(
                read.Data[i] == expected || (form >= CutSession.Structured && i < read.Data.Length / 2 && read.Data[i] == 0),
                $"byte {i} of a read at {read.Offset} is {read.Data[i]}");
        }
    }
}
