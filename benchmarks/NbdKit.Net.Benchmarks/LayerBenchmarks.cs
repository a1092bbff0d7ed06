using BenchmarkDotNet.Attributes;
using NbdKit.Filters;

namespace NbdKit.Benchmarks;

/// <summary>
/// What a layer costs a request: a read of 4 KiB from a plugin that does nothing, called directly (the baseline),
/// through the context of the plugin alone (depth 0), and through stacks of filters: the library's nofilter, which calls go
/// around, its offset, which moves them, and one such as anybody would write, which changes nothing.
/// </summary>
[MemoryDiagnoser]
public class LayerBenchmarks
{
    private const int RequestBytes = 4096;

    private readonly byte[] _buffer = new byte[RequestBytes];
    private readonly TrivialPlugin _plugin = new();
    private INbdPluginHandle _direct = null!;
    private NbdBackend _passing = null!;
    private NbdBackend _moving = null!;
    private NbdBackend _plain = null!;
    private NextContext _passingDisk = null!;
    private NextContext _movingDisk = null!;
    private NextContext _plainDisk = null!;

    /// <summary>The number of filters.</summary>
    [Params(0, 1, 4, 8)]
    public int Depth { get; set; }

    [GlobalSetup]
    public async Task Setup()
    {
        _direct = _plugin;
        _passing = Stack(() => new NofilterFilter());
        _moving = Stack(() => new OffsetFilter { Offset = RequestBytes });
        _plain = Stack(() => new PlainFilter());
        _plainDisk = await _plain.OpenAsync();
        _passingDisk = await _passing.OpenAsync();
        _movingDisk = await _moving.OpenAsync();
    }

    [GlobalCleanup]
    public async Task Cleanup()
    {
        await _passingDisk.DisposeAsync();
        await _movingDisk.DisposeAsync();
        await _plainDisk.DisposeAsync();
        await _passing.DisposeAsync();
        await _plain.DisposeAsync();
        await _moving.DisposeAsync();
    }

    [Benchmark(Baseline = true)]
    public ValueTask Plugin() => _direct.ReadAsync(_buffer, RequestBytes, CancellationToken.None);

    [Benchmark]
    public ValueTask Nofilter() => _passingDisk.ReadAsync(_buffer, RequestBytes, CancellationToken.None);

    [Benchmark]
    public ValueTask Offset() => _movingDisk.ReadAsync(_buffer, RequestBytes, CancellationToken.None);

    [Benchmark]
    public ValueTask Plain() => _plainDisk.ReadAsync(_buffer, RequestBytes, CancellationToken.None);

    private NbdBackend Stack(Func<INbdFilter> filter)
        => NbdBackend.Compose(new TrivialPlugin(), [.. Enumerable.Range(0, Depth).Select(_ => filter())]);
}
