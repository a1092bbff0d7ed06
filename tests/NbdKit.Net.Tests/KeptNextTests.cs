using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Filters that keep their next: calls take a shorter way, and nothing else is different.</summary>
public sealed class KeptNextTests
{
    private readonly CallRecorder _calls = new();

    [SetUp]
    public void Clear() => _calls.Clear();

    [TestCase(true)]
    [TestCase(false)]
    public async Task Another_context_cannot_be_attached_or_detached_while_it_serves(bool detach)
    {
        var filter = new KeepingFilter();
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), filter);
        await using NextContext disk = await chain.OpenAsync();
        await using NextContext? other = detach
            ? null
            : await filter.Context!.Backend.OpenNextAsync(false, "", filter.Context, default);
        if (other is not null)
        {
            await other.PrepareAsync(default);
        }
        Assert.That(
            () => filter.Context!.SetNext(other),
            Throws.InvalidOperationException.With.Message.Contains("keeps its next"));
        await disk.ReadAsync(new byte[1], 0, default);
    }

    [Test]
    public async Task It_may_detach_in_its_finalize()
    {
        var filter = new KeepingFilter { DetachesInFinalize = true };
        await using (NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), filter))
        {
            await using NextContext disk = await chain.OpenAsync();
            await disk.ReadAsync(new byte[1], 0, default);
        }
        Assert.That(filter.Detached, Is.Not.Null);
        await filter.Detached!.CloseAsync();
        Assert.That(_calls.Count("plugin", "close"), Is.EqualTo(1));
    }

    [Test]
    public async Task Transparent_layers_are_gone_around_and_keep_their_gates_and_rules()
    {
        var plugin = new RecordingPlugin(_calls);
        await using NbdBackend chain = NbdBackend.Compose(
            plugin,
            new NofilterFilter(), new NoextentsFilter(), new RecordingFilter(_calls, "middle"), new NozeroFilter(), new NofilterFilter());
        await using NextContext disk = await chain.OpenAsync();
        _calls.Clear();
        byte[] data = [1, 2, 3];
        byte[] found = new byte[3];
        await disk.WriteAsync(data, 10, RequestFlags.Fua, default);
        await disk.ReadAsync(found, 10, default);
        Assert.That(found, Is.EqualTo(data));
        Assert.That(
            _calls.Lines,
            Is.EqualTo(new[] { "middle#1.write", "plugin#1.write", "middle#1.read", "plugin#1.read" }));
        Assert.That(_calls.Calls[1].Flags, Is.EqualTo(RequestFlags.Fua));
        Assert.That(
            async () => await disk.ReadAsync(found, plugin.Data.Length - 2, default),
            Throws.TypeOf<ArgumentOutOfRangeException>());
        await disk.CloseAsync();
        Assert.That(async () => await disk.ReadAsync(found, 0, default), Throws.InvalidOperationException);
    }

    [Test]
    public async Task A_failure_of_the_plugin_comes_back_through_kept_layers()
    {
        var plugin = new RecordingPlugin(_calls);
        plugin.Script.Fail("read", 1, NbdError.NoSpace);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new OffsetFilter { Offset = 5 }, new NofilterFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], 0, default),
            Throws.TypeOf<NbdException>().With.Property("Error").EqualTo(NbdError.NoSpace));
        await disk.ReadAsync(new byte[1], 0, default);
        Assert.That(_calls.Calls[^1].Offset, Is.EqualTo(5));
    }

    private sealed class KeepingFilter : INbdFilter, INbdFilterHandle
    {
        public string Name => "keeping";

        public bool KeepsNext => true;

        public bool DetachesInFinalize { get; init; }

        public NbdContext? Context { get; private set; }

        public NextContext? Detached { get; private set; }

        public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        {
            Context = context;
            await context.OpenNextAsync(cancellationToken);
            return this;
        }

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
        {
            if (DetachesInFinalize)
            {
                Detached = Context!.SetNext(null);
            }
            return default;
        }
    }
}
