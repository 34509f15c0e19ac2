// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
)

// NewInformerFunc makes an informer for a cache. The field "NewInformer" of controller-runtime's
// cache.Options takes such a function.
type NewInformerFunc func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer

// Informers returns a function that makes informers for a cache. If the API server can stream the
// objects, an informer is as usual. Otherwise the informer lists the objects page by page, and strips
// each page by the given function before the next page. API servers of Kubernetes 1.33 stream none by
// default, and would send all objects in one answer.
//
// The cache strips the objects once more, so stripping must change no stripped object.
func (p *Pager) Informers(strip toolscache.TransformFunc) NewInformerFunc {
	return func(lw toolscache.ListerWatcher, example runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		from := toolscache.ToListerWatcherWithContext(lw)
		return toolscache.NewSharedIndexInformer(&toolscache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return p.list(ctx, from, options, strip)
			},
			WatchFuncWithContext: from.WatchWithContext,
		}, example, resync, indexers)
	}
}

// list lists all objects, and strips each page of them before it reads the next page. The list is a
// consistent read, because older API servers ignore the limit of any other list.
func (p *Pager) list(ctx context.Context, from toolscache.ListerWithContext, options metav1.ListOptions, strip toolscache.TransformFunc) (runtime.Object, error) {
	var whole runtime.Object
	var objects []runtime.Object
	options.ResourceVersion, options.ResourceVersionMatch = "", ""
	err := p.Each(ctx, func(ctx context.Context, limit int64, page string) (next string, err error) {
		options.Limit, options.Continue = limit, page
		list, err := from.ListWithContext(ctx, options)
		if err != nil {
			return "", err
		}
		read, err := stripped(list, strip)
		if err != nil {
			return "", err
		}
		objects = append(objects, read...)
		if whole == nil {
			whole = list
		}
		return continueOf(list)
	})
	if err != nil {
		return nil, err
	}
	return whole, meta.SetList(whole, objects)
}

// stripped takes the objects out of the list, and strips them.
func stripped(list runtime.Object, strip toolscache.TransformFunc) (objects []runtime.Object, err error) {
	if objects, err = meta.ExtractListWithAlloc(list); err != nil {
		return nil, err
	}
	for i, object := range objects {
		kept, err := strip(object)
		if err != nil {
			return nil, err
		}
		var is bool
		if objects[i], is = kept.(runtime.Object); !is {
			return nil, fmt.Errorf("strip %T: %T is no object", object, kept)
		}
	}
	return objects, meta.SetList(list, nil)
}

// continueOf removes the token of the next page from the list, and returns the token.
func continueOf(list runtime.Object) (token string, err error) {
	about, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	token = about.GetContinue()
	about.SetContinue("")
	about.SetRemainingItemCount(nil)
	return token, nil
}
