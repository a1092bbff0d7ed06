using BenchmarkDotNet.Attributes;
using NbdKit.Plugins;

namespace NbdKit.Benchmarks;

/// <summary>
/// The memory plugin below one context, at random offsets of a disk whose pages all exist. The baseline is a copy out
/// of one flat array, which has neither pages nor layers.
/// </summary>
[MemoryDiagnoser]
public class MemoryPluginBenchmarks
{
    private const int DiskBytes = 256 << 20;

    private readonly byte[] _flat = new byte[DiskBytes];
    private long[] _offsets = [];
    private byte[] _buffer = [];
    private NbdBackend? _chain;
    private NextContext? _disk;
    private int _next;

    [Params(4 << 10, 256 << 10)]
    public int RequestBytes { get; set; }

    [GlobalSetup]
    public async Task SetupAsync()
    {
        var random = new Random(1);
        _offsets = new long[1 << 16];
        foreach (ref long offset in _offsets.AsSpan())
        {
            offset = (long)random.Next(DiskBytes / RequestBytes) * RequestBytes;
        }
        _buffer = new byte[RequestBytes];
        random.NextBytes(_buffer);
        random.NextBytes(_flat);
        _chain = NbdBackend.Compose(new MemoryPlugin { Size = DiskBytes });
        _disk = await _chain.OpenAsync();
        for (int at = 0; at < DiskBytes; at += 1 << 20)
        {
            await _disk.WriteAsync(_flat.AsMemory(at, 1 << 20), at, RequestFlags.None, CancellationToken.None);
        }
    }

    [GlobalCleanup]
    public async Task CleanupAsync()
    {
        await _disk!.DisposeAsync();
        await _chain!.DisposeAsync();
    }

    [Benchmark(Baseline = true)]
    public void Copy() => _flat.AsSpan((int)NextOffset(), RequestBytes).CopyTo(_buffer);

    [Benchmark]
    public ValueTask Read() => _disk!.ReadAsync(_buffer, NextOffset(), CancellationToken.None);

    [Benchmark]
    public ValueTask Write() => _disk!.WriteAsync(_buffer, NextOffset(), RequestFlags.None, CancellationToken.None);

    [Benchmark]
    public ValueTask WriteFua() => _disk!.WriteAsync(_buffer, NextOffset(), RequestFlags.Fua, CancellationToken.None);

    private long NextOffset() => _offsets[_next++ & (_offsets.Length - 1)];
}
