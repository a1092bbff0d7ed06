using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public sealed class PayloadArraysTests
{
    private const int Large = (2 << 20) + 16;

    private PayloadArrays _arrays = null!;

    [SetUp]
    public void Create() => _arrays = new PayloadArrays(4 * Large);

    [Test]
    public void The_largest_payload_and_its_header_take_no_more_than_they_must()
    {
        const int size = (32 << 20) + 16;
        Assert.That(_arrays.Rent(size), Has.Length.EqualTo(size));
    }

    [Test]
    public void Arrays_are_used_again([Values(64 << 10, (512 << 10) + 16, PayloadArrays.MaxPooled, Large)] int size)
    {
        byte[] array = _arrays.Rent(size);
        Assert.That(array, Has.Length.AtLeast(size));
        _arrays.Return(array);
        byte[] again = _arrays.Rent(size);
        Assert.That(again, Is.SameAs(array));
        Assert.That(_arrays.Rent(size), Is.Not.SameAs(array));
        _arrays.Return(again);
    }

    [Test]
    public void A_kept_array_is_used_for_what_is_nearly_as_long_only()
    {
        byte[] array = _arrays.Rent(Large);
        _arrays.Return(array);
        Assert.That(_arrays.Rent(Large + 1), Has.Length.EqualTo(Large + 1));
        Assert.That(_arrays.Rent(Large / 2 + 100), Has.Length.EqualTo(Large / 2 + 100));
        Assert.That(_arrays.Rent(Large - 16), Is.SameAs(array));
    }

    [Test]
    public void The_newest_are_kept_as_far_as_there_is_room()
    {
        byte[][] arrays = [.. Enumerable.Range(0, 6).Select(_ => _arrays.Rent(Large))];
        foreach (byte[] array in arrays)
        {
            _arrays.Return(array);
        }
        byte[][] again = [.. Enumerable.Range(0, 6).Select(_ => _arrays.Rent(Large))];
        Assert.That(again.Count(arrays.Contains), Is.EqualTo(4));
        Assert.That(again[..4], Is.EqualTo(arrays[2..].Reverse()));
    }

    [Test]
    public void Those_in_use_that_are_too_large_for_the_shared_pool_are_counted()
    {
        byte[][] arrays = [_arrays.Rent(100), _arrays.Rent(Large), _arrays.Rent((4 * Large) + 1)];
        Assert.That(_arrays.LargeInUse, Is.EqualTo(2));
        Array.ForEach(arrays, _arrays.Return);
        Assert.That(_arrays.LargeInUse, Is.Zero);
        byte[] again = _arrays.Rent(Large);
        Assert.That((_arrays.LargeInUse, ReferenceEquals(again, arrays[1])), Is.EqualTo((1, true)));
    }

    [Test]
    public void An_array_that_is_too_long_to_keep_is_left_to_the_collector()
    {
        byte[] array = _arrays.Rent((4 * Large) + 1);
        _arrays.Return(array);
        Assert.That(_arrays.Rent((4 * Large) + 1), Is.Not.SameAs(array));
    }

    [Test]
    public void What_is_not_used_for_a_while_is_given_up()
    {
        byte[] array = _arrays.Rent(Large);
        _arrays.Return(array);
        _arrays.Age();
        byte[] again = _arrays.Rent(Large);
        Assert.That(again, Is.SameAs(array));
        _arrays.Return(again);
        _arrays.Age();
        _arrays.Age();
        Assert.That(_arrays.Rent(Large), Is.Not.SameAs(array));
    }
}
