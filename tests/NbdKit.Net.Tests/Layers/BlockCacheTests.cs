using NbdKit.Layers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Layers;

public sealed class BlockCacheTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    /// <summary>Makes blocks of 100 bytes when it is allowed to.</summary>
    private sealed class Source : IBlockSource
    {
        public int Loads { get; private set; }

        public Func<Task> Before { get; set; } = () => Task.CompletedTask;

        public async ValueTask<byte[]> LoadAsync(long position, CancellationToken cancellationToken)
        {
            Loads++;
            await Before();
            byte[] block = new byte[100];
            block[0] = (byte)position;
            return block;
        }
    }

    [Test]
    public async Task The_blocks_that_were_used_last_are_kept()
    {
        var source = new Source();
        var cache = new BlockCache(250);
        foreach (int position in new[] { 1, 2, 1, 3, 1, 2 })
        {
            Assert.That((await cache.GetAsync(source, position, None))[0], Is.EqualTo(position));
            Assert.That(cache.Bytes, Is.LessThanOrEqualTo(250));
        }
        Assert.That(source.Loads, Is.EqualTo(4), "only 2 was dropped, for 3");
    }

    [Test]
    public async Task One_block_is_kept_however_large_it_is()
    {
        var source = new Source();
        var cache = new BlockCache(0);
        await cache.GetAsync(source, 1, None);
        await cache.GetAsync(source, 1, None);
        Assert.That((source.Loads, cache.Bytes), Is.EqualTo((1, 100)));
        await cache.GetAsync(source, 2, None);
        Assert.That((source.Loads, cache.Bytes), Is.EqualTo((2, 100)));
    }

    [Test]
    public async Task Blocks_of_different_sources_are_different()
    {
        (Source one, Source two) = (new Source(), new Source());
        var cache = new BlockCache(1000);
        await cache.GetAsync(one, 1, None);
        await cache.GetAsync(two, 1, None);
        Assert.That((one.Loads, two.Loads), Is.EqualTo((1, 1)));
    }

    [Test]
    public async Task What_several_want_at_once_is_loaded_once()
    {
        var go = new TaskCompletionSource();
        var source = new Source { Before = () => go.Task };
        var cache = new BlockCache(1000);
        Task<byte[]>[] waiting = [.. Enumerable.Range(0, 5).Select(_ => cache.GetAsync(source, 7, None).AsTask())];
        go.SetResult();
        byte[][] blocks = await Task.WhenAll(waiting);
        Assert.That(blocks, Is.All.SameAs(blocks[0]));
        Assert.That(source.Loads, Is.EqualTo(1));
    }

    [Test]
    public async Task A_load_that_fails_is_tried_again_by_whoever_waits_for_it()
    {
        var go = new TaskCompletionSource();
        var source = new Source { Before = () => go.Task };
        var cache = new BlockCache(1000);
        Task<byte[]> first = cache.GetAsync(source, 7, None).AsTask();
        Task<byte[]> second = cache.GetAsync(source, 7, None).AsTask();
        source.Before = () => Task.CompletedTask;
        go.SetException(new NbdException(NbdError.IoError, "once"));
        Assert.That(TestData.Failure(() => first).Message, Is.EqualTo("once"));
        Assert.That((await second)[0], Is.EqualTo(7));
        Assert.That(source.Loads, Is.EqualTo(2));
    }

    [Test]
    public async Task Whoever_waits_may_give_up_alone()
    {
        var go = new TaskCompletionSource();
        var source = new Source { Before = () => go.Task };
        var cache = new BlockCache(1000);
        Task<byte[]> first = cache.GetAsync(source, 7, None).AsTask();
        using var gone = new CancellationTokenSource();
        Task<byte[]> second = cache.GetAsync(source, 7, gone.Token).AsTask();
        await gone.CancelAsync();
        Assert.ThrowsAsync<TaskCanceledException>(() => second);
        go.SetResult();
        Assert.That((await first)[0], Is.EqualTo(7));
    }
}
