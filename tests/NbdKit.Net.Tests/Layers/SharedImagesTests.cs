using NbdKit.Layers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Layers;

public sealed class SharedImagesTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly ImageKey Key = new("", IsTls: false, ReadOnly: true);

    [Test]
    public async Task An_image_that_ends_late_takes_none_with_it_that_came_after()
    {
        var plugin = new TestPlugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin, new HookFilter(new Hooks()));
        await chain.StartAsync();
        var images = new SharedImages<object>((_, _, _) => new(new object()));
        var late = new SharedImage<object>(images, Key);
        SharedImage<object> image = await images.AcquireAsync(chain, Key, None);
        images.Forget(Key, late);
        Assert.That(images.Count, Is.EqualTo(1));
        Assert.That(await images.AcquireAsync(chain, Key, None), Is.SameAs(image));
        await image.ReleaseAsync();
        await image.ReleaseAsync();
        Assert.That((images.Count, plugin.Opened, plugin.Closed), Is.EqualTo((0, 1, 1)));
    }

    [Test]
    public async Task An_image_is_closed_and_forgotten_whatever_its_content_throws()
    {
        var plugin = new TestPlugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin, new HookFilter(new Hooks()));
        await chain.StartAsync();
        var images = new SharedImages<Failing>((_, _, _) => new(new Failing()));
        SharedImage<Failing> image = await images.AcquireAsync(chain, Key, None);
        Assert.That(async () => await image.ReleaseAsync(), Throws.InstanceOf<IOException>());
        Assert.That((images.Count, plugin.Closed), Is.EqualTo((0, 1)));
    }

    private sealed class Failing : IAsyncDisposable
    {
        public ValueTask DisposeAsync() => throw new IOException("it does not end");
    }
}
