using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class NoparallelFilterTests
{
    [TestCase(ThreadModel.Parallel, null, ThreadModel.SerializeRequests)]
    [TestCase(ThreadModel.Parallel, "requests", ThreadModel.SerializeRequests)]
    [TestCase(ThreadModel.Parallel, "all-requests", ThreadModel.SerializeAllRequests)]
    [TestCase(ThreadModel.Parallel, "connections", ThreadModel.SerializeConnections)]
    [TestCase(ThreadModel.Parallel, "retirement", ThreadModel.SerializeRetirement)]
    [TestCase(ThreadModel.SerializeRequests, "retirement", ThreadModel.SerializeRequests)]
    [TestCase(ThreadModel.SerializeAllRequests, "requests", ThreadModel.SerializeAllRequests)]
    [TestCase(ThreadModel.SerializeConnections, "requests", ThreadModel.SerializeConnections)]
    public void The_chain_is_as_tight_as_the_tighter_of_the_two(ThreadModel plugin, string? serialize, ThreadModel chain)
    {
        INbdFilter filter = NoparallelFilter.Entry.Create(
            new NbdParameters("noparallel", serialize is null ? [] : [new("serialize", serialize)]));
        NbdBackend backend = NbdBackend.Compose(
            new ModelPlugin([]) { ThreadModel = plugin }, new NofilterFilter(), filter, new NofilterFilter());
        Assert.That(backend.ThreadModel, Is.EqualTo(chain));
    }

    [TestCase(ThreadModel.SerializeRequests, 2)]
    [TestCase(ThreadModel.SerializeAllRequests, 1)]
    [TestCase(ThreadModel.SerializeRetirement, 4)]
    public async Task Calls_reach_the_plugin_as_many_at_once_as_allowed(ThreadModel model, int expected)
    {
        var plugin = new ModelPlugin(new byte[4096]);
        var open = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        int inside = 0;
        plugin.Before = async _ =>
        {
            Interlocked.Increment(ref inside);
            await open.Task;
        };
        await using NbdBackend chain = NbdBackend.Compose(
            plugin, new NofilterFilter(), new NoparallelFilter { Serialize = model });
        await using NextContext one = await chain.OpenAsync("a");
        await using NextContext two = await chain.OpenAsync("b");
        Task[] reads = [.. new[] { one, one, two, two }.Select(disk => TestData.ReadAsync(disk, 0, 1))];
        Assert.That(Volatile.Read(ref inside), Is.EqualTo(expected));
        open.SetResult();
        await Task.WhenAll(reads);
        Assert.That(inside, Is.EqualTo(4));
    }

    [TestCase(ThreadModel.Parallel)]
    [TestCase((ThreadModel)(-1))]
    [TestCase((ThreadModel)99)]
    public void Only_models_that_serialize_something_are_accepted(ThreadModel model)
        => Assert.That(() => new NoparallelFilter { Serialize = model }, Throws.TypeOf<ArgumentOutOfRangeException>());

    [Test]
    public void An_unknown_word_is_refused()
        => Assert.That(
            () => NoparallelFilter.Entry.Create(new NbdParameters("noparallel", [new("serialize", "nothing")])),
            Throws.ArgumentException.With.Message.Contains("serialize=nothing"));
}
