using System.IO.Pipelines;
using BenchmarkDotNet.Attributes;
using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Modes;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks;

/// <summary>
/// A batch of reads through a whole server over a pipe in memory, with a plugin that does nothing. At the other end of the
/// baseline's pipe is a loop that answers as many bytes for as many bytes, and knows no protocol.
/// </summary>
[MemoryDiagnoser]
public class SessionBenchmarks
{
    private const int Count = 64;
    private const int PayloadBytes = 4096;
    private const int ReplyBytes = SimpleReply.Size + PayloadBytes;

    private readonly byte[] _batch = RequestEncoding.Reads(Count, PayloadBytes);
    private readonly PipeConnection _bare = new();
    private readonly PipeConnection _session = new();
    private NbdServer _server = null!;
    private Task _answering = Task.CompletedTask;
    private Task _serving = Task.CompletedTask;

    [GlobalSetup]
    public async Task SetupAsync()
    {
        _answering = AnswerAsync(_bare.Server);
        _server = new NbdServer(NbdBackend.Compose(new TrivialPlugin()));
        _serving = _server.ServeAsync(_session.Server);
        await _session.OpenAsync();
    }

    [GlobalCleanup]
    public async Task CleanupAsync()
    {
        _bare.Close();
        _session.Close();
        await _answering;
        await _serving;
        await _server.DisposeAsync();
    }

    [Benchmark(Baseline = true, OperationsPerInvoke = Count)]
    public ValueTask BarePipe() => _bare.ExchangeAsync(_batch, Count * ReplyBytes);

    [Benchmark(OperationsPerInvoke = Count)]
    public ValueTask Session() => _session.ExchangeAsync(_batch, Count * ReplyBytes);

    private static async Task AnswerAsync(IDuplexPipe pipe)
    {
        byte[] replies = new byte[Count * ReplyBytes];
        while (true)
        {
            ReadResult result = await pipe.Input.ReadAtLeastAsync(Count * RequestHeader.Size);
            if (result.Buffer.Length < Count * RequestHeader.Size)
            {
                await pipe.Output.CompleteAsync();
                return;
            }
            pipe.Input.AdvanceTo(result.Buffer.GetPosition(Count * RequestHeader.Size));
            await pipe.Output.WriteAsync(replies);
        }
    }
}
