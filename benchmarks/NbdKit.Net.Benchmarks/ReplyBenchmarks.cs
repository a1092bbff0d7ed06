using BenchmarkDotNet.Attributes;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Protocol;
using NbdKit.Server;
using NbdKit.Transports;

namespace NbdKit.Benchmarks;

/// <summary>
/// What it costs to get the replies to a batch of reads out, with a client that takes everything at once. The baseline
/// copies the payloads into one flat buffer and has no headers, no queue and no budget.
/// </summary>
[MemoryDiagnoser]
public class ReplyBenchmarks
{
    private const int Count = 32;
    private const int PayloadBytes = 4096;
    private const int ReplyBytes = SimpleReply.Size + PayloadBytes;

    private readonly byte[] _payload = new byte[PayloadBytes];
    private readonly byte[] _flat = new byte[Count * PayloadBytes];
    private readonly SinkTransport _sink = new();
    private ReplyWriter _writer = null!;
    private Task _sending = Task.CompletedTask;

    [GlobalSetup]
    public void Setup()
    {
        var loans = new DefaultObjectPool<Loan>(new DefaultPooledObjectPolicy<Loan>());
        var budget = new FlowBudget(64, 64 << 20, new ServerBudget(512 << 20));
        _writer = new ReplyWriter(_sink, new SlabPool(), new PayloadArrays(0), loans, budget, new StallClock(TimeProvider.System));
        _sending = _writer.RunAsync(CancellationToken.None);
    }

    [GlobalCleanup]
    public async Task CleanupAsync()
    {
        _writer.Close();
        await _sending;
    }

    [Benchmark(Baseline = true, OperationsPerInvoke = Count)]
    public void Copies()
    {
        for (int i = 0; i < Count; i++)
        {
            _payload.CopyTo(_flat, i * PayloadBytes);
        }
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public long Staged()
    {
        for (int i = 0; i < Count; i++)
        {
            Span<byte> reply = _writer.Reserve(ReplyBytes).Span;
            SimpleReply.Write(reply, 0, (ulong)i);
            _payload.CopyTo(reply[SimpleReply.Size..]);
            _writer.Commit(ReplyBytes);
        }
        _writer.Flush();
        return _sink.Sent;
    }

    [Benchmark(OperationsPerInvoke = Count)]
    public long Posted()
    {
        for (int i = 0; i < Count; i++)
        {
            ReplySegment segment = _writer.ReserveShared(ReplyBytes, out Memory<byte> memory);
            SimpleReply.Write(memory.Span, 0, (ulong)i);
            _payload.CopyTo(memory.Span[SimpleReply.Size..]);
            _writer.Post(segment);
        }
        return _sink.Sent;
    }
}
